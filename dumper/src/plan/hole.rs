//! Where the stub goes: a hole in the address space of every task.
