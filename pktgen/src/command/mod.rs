//! The commands of `pktgen`, one file each, and what several of them read from the command line.

pub(crate) mod replay;

/// An Ethernet address such as 02:00:00:00:00:01.
pub(crate) fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    let bytes: Result<Vec<u8>, _> = text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect();
    bytes
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| format!("`{text}` is not an Ethernet address such as 02:00:00:00:00:01"))
}
