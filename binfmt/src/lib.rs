//! `ckpt-binfmt` registers `ckpt-restore` with the kernel (binfmt_misc), which then runs it for every image;
//! `ckpt-restore` checks what the administrator wants checked, and restores the image with its own restorer.

pub mod cli;
pub mod handler;
pub mod policy;
pub mod register;
pub mod signature;
pub mod sys;
