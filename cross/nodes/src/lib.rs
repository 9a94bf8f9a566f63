//! QEMU nodes of either instruction set: machines with a Debian kernel that share directories with this host and run commands.
//!
//! A node boots in seconds from an image that `cross/nodes/image` builds once out of Debian packages. Directories are shared
//! live (virtio-fs), so whatever a command does to them is there on the host when it ends. Commands travel over
//! virtio-serial ports to an agent, the node's init, which speaks [`wire`].

#[cfg(target_os = "linux")]
pub mod client;
#[cfg(target_os = "linux")]
pub mod machine;
#[cfg(target_os = "linux")]
pub mod place;
pub mod wire;
