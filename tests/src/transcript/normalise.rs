//! Puts words where each run has other numbers, so that two runs print the same. Pure.

use std::sync::LazyLock;

use regex::Regex;

/// What is replaced, in this order, by what.
const RULES: &[(&str, &str)] = &[
    // Lines of klog: time, process and place in the source.
    (
        r"(?m)^([IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ \S+\] ",
        "$1 KLOG] ",
    ),
    // kubectl reads before it has made its streams, now and then, and the server's first message is empty.
    (
        r"(?m)^E KLOG\] Unknown stream id \d, discarding message\n",
        "",
    ),
    // A reflector that its own client ends, now and then, says so.
    (
        r#"(?m)^[IW] KLOG\] "Warning: watch ended with error" .*context canceled.*\n"#,
        "",
    ),
    (
        r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "UID",
    ),
    (
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)",
        "TIME",
    ),
    (
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? [+-]\d{4} [A-Z]+( m=\S+)?",
        "TIME",
    ),
    (
        r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}",
        "TIME",
    ),
    (r#"(resourceVersion"?: ?)"\d+""#, "$1\"N\""),
    // Files that kubectl makes: their numbers may look like a hash.
    (r"/tmp/(kubectl-edit|LIVE|MERGED)-[0-9a-z]+", "/tmp/$1-N"),
    (r"\bkube-api-access-[a-z0-9]{5}\b", "kube-api-access-RANDOM"),
    // Names that a server completes, and hashes of templates, in the alphabet of Kubernetes.
    (
        r"-[bcdf0-9hjklmnpqrstvwxz]{8,10}-[bcdf0-9ghjklmnpqrstvwxz]{5}\b",
        "-HASH-RANDOM",
    ),
    (r"\b(pod-template-hash[=:]\s*)[0-9a-z]{8,10}\b", "${1}HASH"),
    (r"-[bcdfghjklmnpqrstvwxz2456789]{8,10}\b", "-HASH"),
    // The server, Services' addresses and their ports on nodes.
    (
        r"https?://(127\.0\.0\.1|localhost):\d{4,5}",
        "https://SERVER",
    ),
    (r"127\.0\.0\.1:\d{4,5}", "SERVER"),
    (r"\b10\.9[67]\.\d{1,3}\.\d{1,3}\b", "ADDRESS"),
    (r"\b3[0-2]\d{3}(/TCP|/UDP)", "NODE-PORT$1"),
    (r"(nodePort: |NodePort: .*)3[0-2]\d{3}", "${1}NODE-PORT"),
    // Ages below two minutes.
    (r" \(x\d+ over \S+\)", ""),
    (
        r"(?m)(^| |\()(\d{1,2}s|1m\d{0,2}s?|\d{3}d|<invalid>)( ago|$| +)",
        "${1}AGE$3",
    ),
    (r"(?m)\bAGE +", "AGE   "),
    (r"AGE   ago", "AGE ago"),
    (r"(ADDRESS|CLUSTER-IP|PORT\(S\)) +", "$1   "),
    (r"NODE-PORT(/\S+) +", "NODE-PORT$1   "),
    (r"RANDOM +", "RANDOM   "),
];

static COMPILED: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let compile = |(pattern, by): &(&str, &'static str)| {
        (
            Regex::new(pattern).expect("the pattern is well formed"),
            *by,
        )
    };
    RULES.iter().map(compile).collect()
});

/// `directory` is where the commands run.
pub fn normalise(text: &str, directory: &str) -> String {
    let mut text = text.replace(directory, "DIR");
    for (pattern, by) in COMPILED.iter() {
        text = pattern.replace_all(&text, *by).into_owned();
    }
    let lines = text.lines().map(str::trim_end);
    let text = lines.collect::<Vec<_>>().join("\n");
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::normalise;

    #[test]
    fn what_differs_from_run_to_run_is_replaced() {
        for (said, wanted) in [
            (
                "web-6799fc88d8-x7tq4   0/1   3s",
                "web-HASH-RANDOM   0/1   AGE",
            ),
            (
                "replicaset.apps/web-6799fc88d8 scaled",
                "replicaset.apps/web-HASH scaled",
            ),
            ("at https://127.0.0.1:41234/x", "at https://SERVER/x"),
            (
                "E1129 21:26:00.123456   99 memcache.go:26] no",
                "E KLOG] no",
            ),
            (
                "E1129 21:26:00.123456   99 websocket.go:1] Unknown stream id 1, discarding message\ncontent",
                "content",
            ),
            ("uid: 0f5bd35f-12e5-4ee9-a6ab-3a9e8c1c4b54", "uid: UID"),
            (
                "creationTimestamp: \"2026-11-29T21:26:00Z\"",
                "creationTimestamp: \"TIME\"",
            ),
            ("  resourceVersion: \"123\"", "  resourceVersion: \"N\""),
            ("Normal  5s (x2 over 9s)  kubelet", "Normal  AGE   kubelet"),
            ("web  1 (4s ago)", "web  1 (AGE ago)"),
            (
                "ClusterIP   10.96.7.8      <none>",
                "ClusterIP   ADDRESS   <none>",
            ),
            ("80:31234/TCP   3s", "80:NODE-PORT/TCP   AGE"),
            ("in /tmp/x/pod.yaml", "in DIR/pod.yaml"),
            (
                "/tmp/kubectl-edit-245947856.yaml",
                "/tmp/kubectl-edit-N.yaml",
            ),
        ] {
            assert_eq!(normalise(said, "/tmp/x"), wanted);
        }
    }

    #[test]
    fn what_an_object_says_stays() {
        for said in [
            "--timeout=30s",
            "delay=0s timeout=1s period=10s",
            "node.kubernetes.io/not-ready:NoExecute op=Exists for 300s",
            "nginx-deployment",
            "kube-node-lease",
        ] {
            assert_eq!(normalise(said, "/tmp/x"), said);
        }
    }
}
