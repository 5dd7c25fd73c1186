//! All assembly, and what needs instructions that not every CPU has. A second CPU is one more file of each here.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
mod x86_64_wide;
#[cfg(target_arch = "x86_64")]
pub use {x86_64::*, x86_64_wide::*};
