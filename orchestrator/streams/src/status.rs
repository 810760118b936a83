//! The Status objects that a command ends with, as the kubelet makes them
//! (1.20, `pkg/kubelet/cri/streaming/remotecommand/exec.go`).

use serde_json::{Value, json};

/// The command has ended with exit code 0, or was only attached to.
pub fn success() -> Value {
    json!({"metadata": {}, "status": "Success"})
}

/// The command has ended with that exit code: `success` for 0.
pub fn exit_code(code: i32) -> Value {
    if code == 0 {
        return success();
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit code {code}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

/// The command could not be run, or its end is not known.
pub fn internal_error(text: &str) -> Value {
    let text = format!("Internal error occurred: {text}");
    json!({
        "metadata": {},
        "status": "Failure",
        "message": text,
        "reason": "InternalError",
        "details": {"causes": [{"message": text}]},
        "code": 500,
    })
}
