# Makes the database at the first start, and the user at each.
set -eu
data=/var/lib/mysql/data
if [ ! -e $data/made ]; then
  rm -rf $data
  mkdir -p $data
  mariadb-install-db --datadir=$data --auth-root-authentication-method=normal --skip-test-db >/dev/null
  touch $data/made
fi
cat >/tmp/init.sql <<SQL
CREATE DATABASE IF NOT EXISTS wordpress;
CREATE USER IF NOT EXISTS wordpress@'%' IDENTIFIED BY '$PASSWORD';
ALTER USER wordpress@'%' IDENTIFIED BY '$PASSWORD';
GRANT ALL ON wordpress.* TO wordpress@'%';
SQL
exec mariadbd --datadir=$data --socket=/tmp/mariadb.sock --pid-file=/tmp/mariadb.pid \
  --init-file=/tmp/init.sql --skip-name-resolve --innodb-buffer-pool-size=32M
