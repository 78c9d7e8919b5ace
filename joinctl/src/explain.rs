//! `joinctl explain`: the page of an error code, out of the binary.

use anyhow::bail;
use clap::Args;

use crate::output::{self, Format, tree::mapping};

/// The pages of `docs/errors`, by code.
const PAGES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/pages.rs"));

/// Which code.
#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// As an error shows it in parentheses, such as LOCKED.
    code: String,
}

impl Explain {
    pub(crate) fn run(self, format: Format) -> anyhow::Result<()> {
        let Some(text) = page(&self.code) else {
            let codes: Vec<_> = PAGES.iter().map(|(code, _)| *code).collect();
            bail!("there is no code {}; there are {}", self.code, codes.join(", "));
        };
        let code = standard(&self.code);
        output::print(format, &mapping([("code", code.into()), ("text", text.into())]), || text.to_owned())
    }
}

/// The page of a code; small letters and dashes are as good.
pub(crate) fn page(code: &str) -> Option<&'static str> {
    let code = standard(code);
    PAGES.iter().find(|(name, _)| *name == code).map(|(_, text)| *text)
}

fn standard(code: &str) -> String {
    code.to_ascii_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use join_domain::refusal::Code;

    use super::{PAGES, page};

    #[test]
    fn every_code_has_a_page_and_every_page_a_code() {
        for code in Code::ALL {
            assert!(page(code.as_str()).is_some(), "docs/errors/{code}.md is missing");
        }
        assert_eq!(PAGES.len(), Code::ALL.len());
    }

    #[test]
    fn a_code_is_found_as_people_write_it() {
        assert_eq!(page("join-state-required"), page("JOIN_STATE_REQUIRED"));
        assert_eq!(page("nothing"), None);
    }
}
