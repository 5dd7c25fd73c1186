//! The command lines.

use crate::policy::{Owner, Policy};
use crate::signature;
use anyhow::Result;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// Registers ckpt-restore as the kernel's handler of ckpt images (binfmt_misc).
///
/// Images restore themselves: none of this is needed. With a handler, the kernel runs ckpt-restore for every
/// image that is executed: also old ones are restored by an up-to-date restorer, those that have none of their own
/// (ckpt-dump --no-stub) can be executed, and /etc/ckpt/restore.conf says what is checked before. It is in force
/// until the next boot (or longer with --boot), in the user namespace and below.
#[derive(Debug, Parser)]
#[command(
    name = "ckpt-binfmt",
    version,
    after_help = "Exit status: 0 done, or registered (status); 1 an error, or not registered (status); 2 usage.\n\n\
        Examples:\n  \
        ckpt-binfmt register            until the next boot (as root)\n  \
        ckpt-binfmt register --boot     and at each boot (systemd-binfmt(8))\n  \
        ckpt-binfmt status\n  \
        ckpt-binfmt unregister --boot\n\n\
        Flags of the registration: F, the handler is opened now, and so works in containers and chroots, where it is \
        not installed (register again after an update); O, it gets the very file that was executed, open; P, it gets the \
        name by which it was called. Never C: the image would run with the rights of a set-user-ID file."
)]
pub struct BinfmtOptions {
    #[command(subcommand)]
    pub command: Command,
}

/// What is done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make ckpt-restore the handler of images (again, if it is: after an update)
    Register {
        /// The handler (default: ckpt-restore beside this program). Statically linked, it also works in other
        /// root directories
        #[arg(long, value_name = "FILE")]
        handler: Option<PathBuf>,
        /// Also at each boot: writes /etc/binfmt.d/ckpt.conf, which systemd-binfmt(8) reads
        #[arg(long)]
        boot: bool,
    },
    /// Let images restore themselves again
    Unregister {
        /// Also from the next boot on: removes /etc/binfmt.d/ckpt.conf
        #[arg(long)]
        boot: bool,
    },
    /// Tell whether it is registered, and for which file
    Status,
}

/// Restores a ckpt image that the kernel cannot or may not execute, or that has no restorer of its own.
///
/// It does what executing the image does: options after FILE are the image's (`ckpt-restore FILE --help`). FILE needs
/// to be readable only: it may lie on a file system mounted noexec, and lack the x bit. What
/// /etc/ckpt/restore.conf demands of images is checked first; the options add to that. Registered by ckpt-binfmt(1),
/// it is run by the kernel for every image.
#[derive(Debug, Parser)]
#[command(
    name = "ckpt-restore",
    version,
    override_usage = "ckpt-restore [OPTIONS] <FILE> [OPTIONS OF THE IMAGE]...",
    after_help = "Exit status: the program's own; 125 if it could not be restored; 2 usage.\n\n\
        Examples:\n  \
        ckpt-restore saved.ckpt --pid ns\n  \
        ckpt-restore --verify --owner same /mnt/noexec/saved.ckpt\n  \
        minisign -G; minisign -Sm saved.ckpt; ckpt-restore --trusted-key minisign.pub saved.ckpt\n\n\
        /etc/ckpt/restore.conf, root's and writable for nobody else:\n  \
        verify = always          check all checksums before anything is restored (else they are while it is)\n  \
        owner = same             only images of whoever restores them, that nobody else may write to\n  \
        trusted-key = RWQ...     only images with a signature FILE.minisig by one of these keys (minisign(1))"
)]
pub struct RestoreOptions {
    /// Check every checksum before anything is restored; without it, each is checked as memory is filled
    #[arg(long)]
    pub verify: bool,

    /// `same`: refuse images of other owners, and those that others may write to
    #[arg(long, value_name = "WHOSE", default_value = "any")]
    pub owner: Owner,

    /// Refuse images that are not signed (FILE.minisig) by this minisign(1) key, given as the key itself or as a
    /// file; may be repeated
    #[arg(long, value_name = "KEY")]
    pub trusted_key: Vec<String>,

    /// Instead of /etc/ckpt/restore.conf
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The image, and options for it
    #[arg(required = true, value_name = "FILE", trailing_var_arg = true, allow_hyphen_values = true)]
    pub image: Vec<OsString>,
}

impl RestoreOptions {
    /// What the options demand.
    ///
    /// # Errors
    /// When a key is none.
    pub fn policy(&self) -> Result<Policy> {
        let keys = self.trusted_key.iter().map(|key| signature::key(key)).collect::<Result<_>>()?;
        Ok(Policy { verify: self.verify, owner: self.owner, keys })
    }
}
