<?php
/* The settings come from the environment, by the names that images of WordPress know. */
define('DB_HOST', getenv('WORDPRESS_DB_HOST'));
define('DB_NAME', getenv('WORDPRESS_DB_NAME') ?: 'wordpress');
define('DB_USER', getenv('WORDPRESS_DB_USER') ?: 'wordpress');
define('DB_PASSWORD', getenv('WORDPRESS_DB_PASSWORD'));
foreach (['AUTH', 'SECURE_AUTH', 'LOGGED_IN', 'NONCE'] as $name) {
    define($name . '_KEY', getenv('WORDPRESS_' . $name . '_KEY') ?: getenv('WORDPRESS_DB_PASSWORD') . $name);
    define($name . '_SALT', getenv('WORDPRESS_' . $name . '_SALT') ?: getenv('WORDPRESS_DB_PASSWORD') . $name . 'S');
}
/* The site is wherever it is asked for. */
define('WP_SITEURL', 'http://' . ($_SERVER['HTTP_HOST'] ?? 'localhost'));
define('WP_HOME', WP_SITEURL);
/* Uploads lie below it, and the server's root holds it. */
define('WP_CONTENT_DIR', '/usr/share/wordpress/wp-content');
/* Nothing here reaches the Internet. */
define('WP_HTTP_BLOCK_EXTERNAL', true);
define('DISABLE_WP_CRON', true);
