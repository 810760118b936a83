//! One file a place in the kernel. Read a program top-down, like a table of what happens to a
//! packet there.

mod container;
mod cut;
mod netdev;
mod overlay;
mod sock;
mod xdp;
