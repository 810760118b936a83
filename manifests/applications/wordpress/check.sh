# A site is installed, an article and a picture are published and read. The volumes are the node's that dies: the
# database must not be started a second time beside them, and all is there when the node is back.
. ../lib.sh

if [ "$MOMENT" = dead ]; then
  eventually 90 "the node's death is noticed" node_is_lost
  unready() { has_pods 0 app=mariadb; }
  eventually 60 "the database is gone" unready
  elsewhere=$(k get pods -l app=mariadb -o jsonpath='{range .items[*]}{.spec.nodeName}{"\n"}{end}' | grep -vx "$NODE" | tr -d '\n')
  [ -z "$elsewhere" ] || fail "the database runs on $elsewhere too"
  exit 0
fi

eventually 180 "a database" has_pods 1 app=mariadb
eventually 180 "a web server" has_pods 1 app=wordpress

# The site is asked by a name of its own choice: it is made for any.
ask() { in_pod app=wordpress curl -sS --fail --max-time 20 "$@"; }
rpc() {
  ask --header 'Content-Type: text/xml' --data "<methodCall><methodName>$1</methodName><params><param><value><int>0</int></value></param><param><value><string>admin</string></value></param><param><value><string>long-enough-1</string></value></param><param><value><struct>$2</struct></value></param></params></methodCall>" \
    http://wordpress/xmlrpc.php
}
member() { echo "<member><name>$1</name><value>$2</value></member>"; }

if [ "$MOMENT" = fresh ]; then
  install() {
    ask --data 'weblog_title=Site&user_name=admin&admin_password=long-enough-1&admin_password2=long-enough-1&pw_weak=1&admin_email=a@example.com' \
      'http://wordpress/wp-admin/install.php?step=2' | grep -Ei 'success|already installed'
  }
  eventually 60 "the site is installed" install
fi

publish() {
  rpc wp.newPost "$(member post_title "<string>Written $MOMENT</string>")$(member post_content "<string>kept</string>")$(member post_status "<string>publish</string>")" | grep '<string>[0-9]'
}
eventually 30 "an article is published" publish
# "picture", as the client sends it.
upload() {
  rpc wp.uploadFile "$(member name "<string>$MOMENT.jpg</string>")$(member type "<string>image/jpeg</string>")$(member bits "<base64>cGljdHVyZQ==</base64>")" | grep -o 'http://wordpress/wp-content/uploads/[^<]*'
}
eventually 30 "a picture is uploaded" upload

moments=$([ "$MOMENT" = back ] && echo fresh back || echo fresh)
for moment in $moments; do
  article() { ask 'http://wordpress/?rest_route=/wp/v2/posts' | grep -o "Written $moment"; }
  eventually 20 "the article written $moment is read" article
  picture() {
    files=$(in_pod app=wordpress find /usr/share/wordpress/wp-content/uploads -name "$moment*.jpg")
    path=$(echo "$files" | head -n 1 | sed 's,.*/wp-content,/wp-content,')
    ask "http://wordpress$path" | grep -x picture
  }
  eventually 20 "the picture uploaded $moment is seen" picture
done
