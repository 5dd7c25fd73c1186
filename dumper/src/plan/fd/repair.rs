//! TCP connections to the outside: they go on (TCP_REPAIR), come back as reset, or are refused.

use super::{Planner, inet};
use crate::collect::fd::inet::InetFacts;
use crate::collect::fd::tcp::{OtherEnd, TcpFacts};
use crate::collect::fd::{Description, outside};
use crate::plan::TcpPolicy;
use crate::sys::tcp::Look;
use ckpt_format::Span;
use ckpt_format::fd::socket::socket_state;
use ckpt_format::fd::tcp::TcpRepair;

/// State of such a connection, and its [`TcpRepair`].
pub fn connection(p: &mut Planner<'_>, d: &Description, facts: &InetFacts, tcp: &TcpFacts) -> (u32, Span) {
    let remote = facts.remote.as_deref().map_or_else(|| "a peer".to_owned(), inet::in_words);
    let whose = match tcp.other {
        OtherEnd::Socket(_) => format!(" ({})", outside::in_words(&facts.outside)),
        _ => String::new(),
    };
    let protocol = inet::protocol(facts);
    let text = format!(
        "fd {}: {protocol} connection from {} to {remote}{whose}",
        d.fd,
        inet::in_words(&facts.local)
    );
    let why_not = match &tcp.outside {
        Some(Ok(_)) if !facts.sharers.is_empty() => {
            format!("to the outside; {} has the same socket", outside::in_words(&facts.sharers))
        }
        Some(Ok(look)) => return (socket_state::REPAIRED, record(p, look)),
        Some(Err(why)) => format!("to the outside; {why}"),
        None if p.b.options.tcp == TcpPolicy::Refuse => "to the outside".to_owned(),
        None => format!("{protocol} connections cannot be made again"),
    };
    if p.b.options.resets_tcp() {
        p.loss("tcp-established", d, format!("{text}; after restore it is reset"));
    } else {
        let remedy = match facts.protocol {
            libc::IPPROTO_TCP => {
                "`--tcp repair` keeps it (as root, both at the dump and at the restore), `--tcp reset` lets the \
                 program see ECONNRESET"
            }
            _ => "`--tcp reset` lets the program see ECONNRESET",
        };
        p.refuse(d, format!("{text} ({why_not})"), remedy);
    }
    (socket_state::BROKEN, Span::default())
}

fn record(p: &mut Planner<'_>, look: &Look) -> Span {
    let unacked = p.b.blob(&look.unacked);
    p.b.payload(&TcpRepair {
        state: u32::from(look.state),
        options: look.options,
        send_scale: look.send_scale,
        receive_scale: look.receive_scale,
        mss: look.mss,
        timestamp: look.timestamp,
        written: look.written,
        received: look.received,
        window: look.window,
        unsent: look.unsent,
        unacked,
        send_buffer: look.send_buffer,
        receive_buffer: look.receive_buffer,
    })
}
