//! Sleeping until a socket has received something, for a worker that has nothing to do.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use crate::error::{Error, Step};

/// Waits until at least one of `fds` is readable (for a socket: its RX ring is not empty) or has an error, at most
/// `timeout`; `None` waits for ever. Returns how many are. A signal ends the wait early with 0.
///
/// Polling a socket also wakes its driver, and in copy mode sends what waits in its TX ring. Other file descriptors may
/// stand in the list, for example an eventfd that ends the wait. One system call, ppoll; no allocation.
///
/// # Errors
/// [`Error::Config`] for more than 64 descriptors, and whatever ppoll answers.
pub fn poll(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> Result<usize, Error> {
    if fds.len() > FDS_MAX {
        return Err(Error::config(
            "fds",
            u32::try_from(fds.len()).unwrap_or(u32::MAX),
            "0 to 64",
        ));
    }
    let mut list = [libc::pollfd {
        fd: -1,
        events: 0,
        revents: 0,
    }; FDS_MAX];
    for (entry, fd) in list.iter_mut().zip(fds) {
        *entry = libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
    }
    let limit = timeout.map(|timeout| libc::timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    });
    let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `list` holds at least `fds.len()` entries (checked above) and `limit` is null or points to a timespec;
    // both live until the call returns. A null signal mask leaves the mask alone.
    let ready = unsafe { libc::ppoll(list.as_mut_ptr(), fds.len() as libc::nfds_t, limit, std::ptr::null()) };
    if ready >= 0 {
        return Ok(ready as usize);
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        source => Err(Error::System {
            step: Step::Poll,
            source,
        }),
    }
}

/// A worker has two sockets; 64 leaves room and keeps the list in half a kilobyte of stack.
const FDS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn waits_for_the_timeout_and_sees_readable_descriptors() {
        let (mut writer, reader) = UnixStream::pair().unwrap();
        assert_eq!(poll(&[reader.as_fd()], Some(Duration::from_millis(1))).unwrap(), 0);
        writer.write_all(b"x").unwrap();
        assert_eq!(poll(&[reader.as_fd(), writer.as_fd()], None).unwrap(), 1);
        assert!(matches!(
            poll(&[reader.as_fd(); 65], None),
            Err(Error::Config {
                field: "fds",
                value: 65,
                ..
            })
        ));
    }
}
