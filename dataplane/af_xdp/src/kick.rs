//! What came of a wake-up. None of it is an error: a worker counts the outcome and goes on.

/// The outcome of waking the kernel to send or to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Kick {
    /// The kernel took all it was given, as far as it says.
    Sent,
    /// Nothing was waiting, or the driver is awake; no system call was made.
    NotNeeded,
    /// EAGAIN: the budget of one call is used up, or the completion ring is full, or memory for packets is short. Some
    /// packets were sent; kick again, after taking completions.
    Again,
    /// EBUSY: the device dropped one packet (its queue was full). The frame completes as if sent; the packets behind it
    /// still wait, so kick again.
    Dropped,
    /// ENOBUFS: no memory for packets, or the socket has no such ring.
    NoBuffers,
    /// ENETDOWN: the interface is down. Do not spin on it: what waits is sent when the interface is up again.
    NetworkDown,
    /// Another errno; ENXIO and EBADF mean that the interface is gone.
    Other(i32),
}

impl Kick {
    /// Another kick now may send more.
    #[inline]
    #[must_use]
    pub fn again(self) -> bool {
        matches!(self, Self::Again | Self::Dropped)
    }

    pub(crate) fn from_errno(errno: i32) -> Self {
        match errno {
            libc::EAGAIN => Self::Again,
            libc::EBUSY => Self::Dropped,
            libc::ENOBUFS => Self::NoBuffers,
            libc::ENETDOWN => Self::NetworkDown,
            errno => Self::Other(errno),
        }
    }
}

/// How often each outcome came, since the socket was bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KickCounts {
    /// [`Kick::Sent`].
    pub sent: u64,
    /// [`Kick::NotNeeded`].
    pub not_needed: u64,
    /// [`Kick::Again`].
    pub again: u64,
    /// [`Kick::Dropped`]: as many packets were dropped by the device.
    pub dropped: u64,
    /// [`Kick::NoBuffers`].
    pub no_buffers: u64,
    /// [`Kick::NetworkDown`].
    pub network_down: u64,
    /// [`Kick::Other`].
    pub other: u64,
}

impl KickCounts {
    #[inline]
    pub(crate) fn count(&mut self, kick: Kick) -> Kick {
        *match kick {
            Kick::Sent => &mut self.sent,
            Kick::NotNeeded => &mut self.not_needed,
            Kick::Again => &mut self.again,
            Kick::Dropped => &mut self.dropped,
            Kick::NoBuffers => &mut self.no_buffers,
            Kick::NetworkDown => &mut self.network_down,
            Kick::Other(_) => &mut self.other,
        } += 1;
        kick
    }

    /// Wake-ups that made a system call.
    #[must_use]
    pub fn system_calls(&self) -> u64 {
        self.sent + self.again + self.dropped + self.no_buffers + self.network_down + self.other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_its_own_counter() {
        let errnos = [
            libc::EAGAIN,
            libc::EBUSY,
            libc::EBUSY,
            libc::ENOBUFS,
            libc::ENETDOWN,
            libc::ENXIO,
        ];
        let mut counts = KickCounts::default();
        for errno in errnos {
            let _ = counts.count(Kick::from_errno(errno));
        }
        assert_eq!(counts.count(Kick::Sent), Kick::Sent);
        assert_eq!(counts.count(Kick::NotNeeded), Kick::NotNeeded);
        let expected = KickCounts {
            sent: 1,
            not_needed: 1,
            again: 1,
            dropped: 2,
            no_buffers: 1,
            network_down: 1,
            other: 1,
        };
        assert_eq!(counts, expected);
        assert_eq!(counts.system_calls(), 7);
        assert!(Kick::Dropped.again() && !Kick::NetworkDown.again());
    }
}
