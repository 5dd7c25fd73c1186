//! What an image without a restorer (`ckpt-dump --no-stub`) does when it is executed and no handler is registered:
//! it says what is missing, and exits like a restore that failed.
#![cfg_attr(rustfmt, rustfmt_skip)]

/// Standard error gets this. As all messages of images.
const MESSAGE: &[u8] = b"ckpt: this image holds no restorer of its own (ckpt-dump --no-stub); \
    restore it by `ckpt-restore FILE`, of the ckpt package, or register that with the kernel (ckpt-binfmt register)\n";

/// Bytes of code in front of the message.
const CODE: usize = 38;

/// Position independent x86-64 code: write(2, MESSAGE), exit_group(125).
pub fn code() -> Vec<u8> {
    let mut out = vec![0xbf, 2, 0, 0, 0];                       // mov edi, 2
    out.extend([0x48, 0x8d, 0x35]);                             // lea rsi, [rip + ..]
    out.extend((CODE as u32 - 12).to_le_bytes());               //   from the next instruction, at 12
    out.push(0xba);                                             // mov edx, ..
    out.extend((MESSAGE.len() as u32).to_le_bytes());
    out.extend([0xb8, 1, 0, 0, 0, 0x0f, 0x05]);                 // mov eax, SYS_write; syscall
    out.push(0xbf);                                             // mov edi, ..
    out.extend(ckpt_format::EXIT_RESTORE_FAILED.to_le_bytes());
    out.extend([0xb8, 231, 0, 0, 0, 0x0f, 0x05]);               // mov eax, SYS_exit_group; syscall
    out.extend([0x0f, 0x0b]);                                   // ud2
    debug_assert_eq!(out.len(), CODE);
    out.extend_from_slice(MESSAGE);
    out
}
