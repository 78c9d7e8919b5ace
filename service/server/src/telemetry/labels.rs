//! The values of labels that are not data.

macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $value:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$of])* $value),+
        }

        impl $name {
            #[allow(dead_code, reason = "a position stands there once it was measured")]
            pub(super) const ALL: &[Self] = &[$(Self::$value),+];

            /// As it stands in the metrics.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $text),+
                }
            }
        }
    };
}

label! {
    /// What needs an operator while it stands.
    Alarm {
        /// The log may not be signed: something contradicts it.
        LogRollback = "log_rollback",
        /// This node is set up for another log than the one that is signed.
        LogMisconfigured = "log_misconfigured",
        /// The log's files on this node are not brought forward.
        LogStalled = "log_stalled",
        /// Bots show more than the ledger knows of.
        AuthorityBehind = "authority_behind",
        /// Keys are sealed under another master key than this node has.
        AuthorityKeys = "authority_keys",
    }
}

label! {
    /// How far a part of the ledger has come.
    Position {
        /// The end of the order.
        NextIndex = "next_index",
        /// Entries in the log's files of some node.
        Integrated = "integrated",
        /// Entries under the newest checkpoint.
        Signed = "signed",
        /// Entries that the views show.
        Views = "views",
        /// Entries without a place yet.
        Unsequenced = "unsequenced",
        /// Entries that every witness has seen.
        Witnessed = "witnessed",
    }
}

label! {
    /// What found no place.
    TurnedAway {
        /// A connection.
        Connection = "connection",
        /// A request.
        Request = "request",
    }
}
