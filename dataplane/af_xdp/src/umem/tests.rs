//! A UMEM without any socket, the kernel played by hand.

use super::*;

fn small(tx_metadata: bool) -> (Umem, Vec<Frame>) {
    Umem::new(&UmemConfig {
        frame_count: 8,
        headroom: 64,
        tx_metadata,
        ..UmemConfig::default()
    })
    .unwrap()
}

#[test]
fn every_slot_is_given_out_once_and_apart_from_the_others() {
    let (umem, mut frames) = small(false);
    let mut slots: Vec<u32> = frames.iter().map(|frame| umem.slot(frame)).collect();
    slots.sort_unstable();
    assert_eq!(slots, [0, 1, 2, 3, 4, 5, 6, 7]);
    for frame in &mut frames {
        let fill = umem.slot(frame) as u8;
        assert!(umem.set_len(frame, umem.capacity(frame)));
        umem.bytes_mut(frame).fill(fill);
    }
    for frame in &frames {
        assert_eq!(umem.bytes(frame).len(), 2048 - 256 - 64);
        assert!(
            umem.bytes(frame)
                .iter()
                .all(|&byte| u32::from(byte) == umem.slot(frame))
        );
    }
}

#[test]
fn a_length_past_the_slot_is_refused() {
    let (umem, mut frames) = small(false);
    let frame = &mut frames[0];
    assert!(umem.set_len(frame, 100));
    assert!(!umem.set_len(frame, 2048 - 256 - 64 + 1));
    assert_eq!(umem.bytes_mut(frame).len(), 100);
    frame.set_continued(true);
    umem.reset(frame);
    assert!(frame.is_empty() && !frame.is_continued());
}

#[test]
#[should_panic(expected = "another UMEM")]
fn a_foreign_frame_is_refused() {
    let (_first, frames) = small(false);
    let (second, _) = small(false);
    let _ = second.bytes(&frames[0]);
}

#[test]
fn a_checksum_request_lies_right_before_the_packet() {
    let (umem, mut frames) = small(true);
    let frame = &mut frames[0];
    assert!(
        !umem.request_checksum(frame, 34, 16),
        "an empty packet has no checksum field"
    );
    assert!(umem.set_len(frame, 54));
    umem.bytes_mut(frame).fill(0xee);
    assert!(
        !umem.request_checksum(frame, 34, 19),
        "the field would end past the packet"
    );
    assert!(umem.request_checksum(frame, 34, 16));
    assert_ne!(frame.flags & Frame::TX_METADATA, 0);
    assert!(umem.bytes(frame).iter().all(|&byte| byte == 0xee));

    // The same slot as the kernel sees it, 24 bytes earlier.
    frame.offset -= TX_METADATA_LEN;
    frame.len = TX_METADATA_LEN;
    let mut expected = [0u8; 24];
    expected[0] = 2;
    expected[8] = 34;
    expected[10] = 16;
    assert_eq!(umem.bytes(frame), expected);

    assert!(umem.set_len(frame, 20));
    assert_eq!(
        frame.flags & Frame::TX_METADATA,
        0,
        "a new length takes the request back"
    );
}

#[test]
fn without_metadata_there_is_no_checksum_request() {
    let (umem, mut frames) = small(false);
    assert!(umem.set_len(&mut frames[0], 60));
    assert!(!umem.request_checksum(&mut frames[0], 34, 16));
}

#[test]
fn identities_differ_and_clones_share_theirs() {
    let ((first, _), (second, _)) = (small(false), small(false));
    assert_ne!(first.id(), second.id());
    assert_eq!(first.clone().id(), first.id());
}

#[test]
fn descriptors_outside_a_slot_make_no_frame() {
    let (umem, mut frames) = small(true);
    let slot = umem.slot(&frames[0]);
    let base = umem.give_to_kernel(frames.remove(0)) & !2047;
    let descriptor = |addr, len| libc::xdp_desc {
        addr,
        len,
        options: libc::XDP_PKT_CONTD,
    };
    for (addr, len) in [
        (8 * 2048, 1),
        (u64::MAX, 1),
        (1 << 32, 1),
        (base + 256, 1793),
        (base + 256, u32::MAX),
        (base + 23, 1),
    ] {
        // SAFETY: the slot has no frame, and none is made here.
        let frame = unsafe { umem.frame_received(descriptor(addr, len)) };
        assert_eq!(frame, None, "{addr:#x} {len}");
    }
    // SAFETY: as above.
    assert_eq!(unsafe { umem.frame_completed(8 * 2048) }, None);
    // SAFETY: the slot was given away above and has no frame.
    let frame = unsafe { umem.frame_received(descriptor(base + 256, 1792)) }.unwrap();
    assert_eq!(
        (umem.slot(&frame), frame.len(), frame.is_continued()),
        (slot, 1792, true)
    );
    umem.give_to_kernel(frame);
    // SAFETY: as above.
    let frame = unsafe { umem.frame_completed(base + 300) }.unwrap();
    assert_eq!(
        (umem.slot(&frame), frame.is_empty(), umem.capacity(&frame)),
        (slot, true, 2048 - 256 - 64)
    );
}

#[cfg(debug_assertions)]
#[test]
#[should_panic(expected = "taken from the kernel twice")]
fn debug_builds_notice_a_slot_that_comes_back_twice() {
    let (umem, mut frames) = small(false);
    let address = umem.give_to_kernel(frames.remove(0));
    // SAFETY: the slot was given away above.
    let _frame = unsafe { umem.frame_completed(address) };
    // SAFETY: broken on purpose; the check panics before a second frame is made.
    let _twin = unsafe { umem.frame_completed(address) };
}
