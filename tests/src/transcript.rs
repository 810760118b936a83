//! Transcripts of clients: command lines and what they print, in `tests/transcripts/TOPIC.txt`.
//!
//! ```text
//! ## A remark on the next command, or, at the top, on the whole.
//! $ kubectl create -f pod.yaml          run by sh in a directory that holds the files below
//! pod/web created                       standard output and error as they come, then [exit code N]
//! $1.27+ kubectl events                 run by kubectl 1.27 and newer only
//! $ kubectl version --client
//! @ 1.20                                what follows is expected of these versions of kubectl
//! Client Version: …
//! @ 1.27 1.30 1.33
//! Client Version: …
//! -- pod.yaml --                        a file; files end the transcript
//! ```
//!
//! What differs from run to run is [`normalise`]d. `UPDATE_EXPECT=1` rewrites what is expected: read the
//! difference, and judge it by what Kubernetes prints, not by what our server says.

mod format;
mod normalise;
mod run;

pub use format::{Answers, Transcript};
pub use run::{Client, Place, judge, versions};

/// The oldest kubectl, the newest, and between them where it changed its ways.
pub const VERSIONS: [u32; 4] = [20, 27, 30, 33];
