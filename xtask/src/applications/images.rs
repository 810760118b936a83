//! The images of the applications, beside the demo images: real programs of Debian's packages.

use crate::images::{PLAIN, Recipe};

/// WordPress runs by PHP's own server; PHP finds its extensions by this file, since no package's script runs.
const PHP: &str = include_str!("../../images/wordpress/php.ini");
const WORDPRESS: &str = include_str!("../../images/wordpress/config.php");

pub const RECIPES: &[Recipe] = &[
    Recipe {
        tags: &["etcd:latest"],
        packages: &["etcd-server", "etcd-client"],
        command: &["etcd"],
        port: Some(2379),
        ..PLAIN
    },
    Recipe {
        tags: &["mariadb:latest"],
        packages: &["mariadb-server-core", "mariadb-client-core"],
        without: &["mariadb-common", "mysql-common"],
        directories: &["run/mysqld", "var/lib/mysql"],
        command: &["mariadbd"],
        port: Some(3306),
        ..PLAIN
    },
    Recipe {
        tags: &["wordpress:latest"],
        packages: &[
            "wordpress",
            "php8.2-cli",
            "php8.2-mysql",
            "php8.2-xml",
            "curl",
        ],
        // Another web server, and the database's client programs.
        without: &[
            "apache2",
            "libapache2",
            "libapr",
            "libaprutil",
            "libdbd",
            "libdbi",
            "libllvm",
            "mariadb-client",
            "mariadb-common",
            "ssl-cert",
        ],
        files: &[
            ("etc/php/8.2/cli/php.ini", PHP),
            ("etc/wordpress/config-default.php", WORDPRESS),
        ],
        command: &["php8.2", "-S", "0.0.0.0:80", "-t", "/usr/share/wordpress"],
        port: Some(80),
        stop_signal: "SIGINT",
        ..PLAIN
    },
    Recipe {
        tags: &["victoria-metrics:latest"],
        packages: &["victoria-metrics"],
        command: &["victoria-metrics"],
        port: Some(8428),
        ..PLAIN
    },
    Recipe {
        tags: &["node-exporter:latest"],
        packages: &["prometheus-node-exporter"],
        command: &["prometheus-node-exporter"],
        port: Some(9100),
        ..PLAIN
    },
    Recipe {
        tags: &["nats:latest"],
        packages: &["nats-server"],
        command: &["nats-server"],
        port: Some(4222),
        ..PLAIN
    },
    // Programs of the applications' own: they come in a ConfigMap.
    Recipe {
        tags: &["python-kubernetes:latest"],
        packages: &["python3", "python3-kubernetes", "python3-redis", "curl"],
        command: &["python3"],
        ..PLAIN
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_images_share_a_name() {
        let mut names: Vec<&str> = RECIPES
            .iter()
            .flat_map(|it| it.tags.iter().copied())
            .collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
