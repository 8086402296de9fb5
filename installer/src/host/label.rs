//! SELinux labels of files. A file that takes another one's place by a rename would get the label of its directory: what is
//! confined (name resolution, daemons) could not read it any more.

use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};
use rustix::io::Errno;

/// Where the kernel keeps a label (`security(7)`, xattr(7)).
const LABEL: &str = "security.selinux";
/// Longer than any label: SELinux limits it to one page.
const LIMIT: usize = 4096;

/// The label of what is at a path; `None` when it has none, or nothing is there.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let mut label = vec![0; LIMIT];
    match lgetxattr(path, LABEL, &mut label[..]) {
        Ok(length) => {
            label.truncate(length);
            Ok(Some(label))
        }
        Err(Errno::NODATA | Errno::NOTSUP | Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading the SELinux label of `{}`", path.display())),
    }
}

/// Gives a file a label. A mount with one label for all (`context=`) shows labels and takes none: nothing is to be done there.
pub(super) fn set(path: &Path, label: &[u8]) -> Result<()> {
    match lsetxattr(path, LABEL, label, XattrFlags::empty()) {
        Ok(()) | Err(Errno::NOTSUP) => Ok(()),
        Err(error) => Err(error)
            .with_context(|| format!("giving `{}` the SELinux label of the file that it replaces", path.display())),
    }
}
