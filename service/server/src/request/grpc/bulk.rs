//! One change of many tokens, one after the other.

use join_domain::{
    id::Name,
    refusal::{Code, Refusal},
};

use crate::app::App;

/// How far a change of many tokens has come.
pub(super) struct Bulk<'a> {
    app: &'a App,
    deed: &'static str,
    /// False for one token that was named.
    by_selector: bool,
    done: Vec<String>,
}

impl<'a> Bulk<'a> {
    pub(super) fn new(app: &'a App, deed: &'static str, by_selector: bool) -> Self {
        Self { app, deed, by_selector, done: Vec::new() }
    }

    /// Changes the next token; none when it was deleted since the selector was read.
    pub(super) async fn change<C>(
        &mut self,
        name: &Name,
        change: impl Future<Output = Result<C, Refusal>>,
    ) -> Result<Option<C>, Refusal> {
        // A node that stops does not wait for the last.
        if self.app.stopping.is_cancelled() {
            let stops = Refusal::new(Code::Unavailable, "this node stops");
            return Err(in_part(stops, name, self.deed, &self.done));
        }
        let changed = change.await;
        if changed.is_ok() {
            self.done.push(name.to_string());
        }
        self.so_far(name, changed)
    }

    /// Reads back what was changed; none when it was deleted meanwhile.
    pub(super) async fn show<T>(
        &self,
        name: &Name,
        read: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<Option<T>, Refusal> {
        self.so_far(name, read.await)
    }

    fn so_far<T>(&self, name: &Name, result: Result<T, Refusal>) -> Result<Option<T>, Refusal> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(refusal) if self.by_selector && refusal.code == Code::NotFound => Ok(None),
            Err(refusal) if !self.by_selector && self.done.is_empty() => Err(refusal),
            Err(refusal) => Err(in_part(refusal, name, self.deed, &self.done)),
        }
    }
}

/// Says how far a change of many tokens came, so that it can be repeated for the others alone. They are changed in the order
/// of their names, all of which might not fit into an answer's headers.
fn in_part(refusal: Refusal, at: &Name, deed: &str, done: &[String]) -> Refusal {
    const NAMED: usize = 50;
    let done = match done {
        [] => "no token".to_owned(),
        [.., last] if done.len() > NAMED => format!("{} tokens, by name up to {last}", done.len()),
        _ => done.join(", "),
    };
    Refusal { message: format!("token `{at}`: {}; {deed} so far: {done}", refusal.message), ..refusal }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stopped_half_way_says_how_far_it_came() {
        let said = |done: usize| {
            let done: Vec<_> = (0..done).map(|number| format!("bot-{number:02}")).collect();
            let refusal = Refusal::new(Code::Unavailable, "the database is away");
            in_part(refusal, &"web".parse().unwrap(), "granted", &done).message
        };
        assert_eq!(said(0), "token `web`: the database is away; granted so far: no token");
        assert_eq!(said(2), "token `web`: the database is away; granted so far: bot-00, bot-01");
        assert_eq!(said(51), "token `web`: the database is away; granted so far: 51 tokens, by name up to bot-50");
    }
}
