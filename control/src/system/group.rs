//! The group `weir`: who is in it may use the control socket as root may.
//!
//! Whoever can ask can also apply and roll back: the files that weir would take are root's, so a member of the group decides
//! when, and root decides what. Where there is no such group the socket is its owner's alone.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use nix::unistd::Group;

/// Its name.
pub const NAME: &str = "weir";

/// Mode of a socket that the group may open, and of one that only its owner may.
const SHARED: u32 = 0o660;
const PRIVATE: u32 = 0o600;

/// Gives the socket at `path` to the group with mode 0660; to its owner alone, with mode 0600, where there is no such group or
/// weir may not give it (it is neither root nor in the group).
///
/// # Errors
/// The mode cannot be set.
pub fn share_socket(path: &Path) -> io::Result<()> {
    share_with(
        path,
        Group::from_name(NAME).ok().flatten().map(|group| group.gid.as_raw()),
    )
}

fn share_with(path: &Path, gid: Option<u32>) -> io::Result<()> {
    let given = gid.is_some_and(|gid| give(path, gid));
    std::fs::set_permissions(path, PermissionsExt::from_mode(if given { SHARED } else { PRIVATE }))
}

/// Whether the file is the group's now; it is from the beginning where weir runs as that group.
fn give(path: &Path, gid: u32) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.gid() == gid) || chown(path, None, Some(gid)).is_ok()
}

/// Makes the directory of the sockets, for their owner and the group to enter. One that is there stays as it is.
///
/// # Errors
/// It cannot be made.
pub fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(path)?;
    if let Some(group) = Group::from_name(NAME).ok().flatten() {
        give(path, group.gid.as_raw());
    }
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o750))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_group_only_the_owner() {
        let path = std::env::temp_dir().join(format!("weir-group-{}", std::process::id()));
        std::fs::write(&path, "").expect("a file");
        share_with(&path, None).expect("a mode");
        assert_eq!(std::fs::metadata(&path).expect("it is there").mode() & 0o777, 0o600);
        let own = nix::unistd::getegid().as_raw();
        share_with(&path, Some(own)).expect("a mode");
        let found = std::fs::metadata(&path).expect("it is there");
        assert_eq!((found.mode() & 0o777, found.gid()), (0o660, own));
        std::fs::remove_file(&path).expect("it is ours");
    }
}
