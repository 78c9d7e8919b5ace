//! Embeds the page of every error code, so that a new page needs no line of code.

use std::{env, error::Error, fmt::Write as _, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../docs/errors").canonicalize()?;
    println!("cargo::rerun-if-changed={}", folder.display());

    let mut pages: Vec<_> = fs::read_dir(&folder)?.collect::<Result<Vec<_>, _>>()?;
    pages.retain(|entry| entry.path().extension().is_some_and(|extension| extension == "md"));
    pages.sort_by_key(|entry| entry.file_name());

    let mut source = String::from("&[\n");
    for path in pages.iter().map(|entry| entry.path()) {
        let code = path.file_stem().ok_or("a page has a name")?.to_string_lossy();
        // Codes are in capitals; other files beside them, such as a README, are no pages.
        if code.chars().all(|c| c.is_ascii_uppercase() || c == '_') && code != "README" {
            writeln!(source, "    ({code:?}, include_str!({:?})),", path.display().to_string())?;
        }
    }
    source.push_str("]\n");
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("pages.rs"), source)?;
    Ok(())
}
