//! Several byte streams over one upgraded HTTP connection, as exec, attach and port-forward need them: SPDY/3.1
//! and WebSocket.
