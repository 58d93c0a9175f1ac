//! Files that hold a secret: read whole, up to a bound, with a look at who else can read them.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// The largest file that is read. Certificates, keys and token files are a few kilobytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// The content of a file.
///
/// # Errors
/// What the system says, and a file of more than [`FILE_BYTES_MAX`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let file = File::open(path)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("the file is larger than 1 MiB"));
    }
    Ok(content)
}

/// Says in the log when a file that holds a secret can be read by every user of the machine.
pub fn warn_if_open(path: &Path, what: &str) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        const OTHERS: u32 = 0o007;
        let Ok(metadata) = path.metadata() else {
            return;
        };
        let mode = metadata.permissions().mode();
        if mode & OTHERS != 0 {
            tracing::warn!(
                file = %path.display(),
                mode = format!("{:o}", mode & 0o777),
                "every user of this machine can read {what}: chmod o= it"
            );
        }
    }
}
