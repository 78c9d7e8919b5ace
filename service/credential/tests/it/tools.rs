//! OpenSSL and OpenSSH as second opinions. Where they are not installed, the library checks still hold.

use std::{env, fs, io::Write as _, path::PathBuf, process::Command};

use tempfile::TempDir;

/// A scratch directory in which one of the tools runs.
pub(crate) struct Tool {
    program: &'static str,
    directory: TempDir,
}

/// What a tool said.
pub(crate) struct Said {
    pub(crate) success: bool,
    pub(crate) text: String,
}

impl Tool {
    /// The tool, or nothing and a loud word when it is not installed. Where nothing may be skipped, the test fails.
    pub(crate) fn find(program: &'static str) -> Option<Self> {
        let installed = env::split_paths(&env::var_os("PATH")?).any(|path| path.join(program).is_file());
        if !installed {
            assert!(env::var_os("JOIN_TEST_ALL").is_none(), "{program} is not installed, and JOIN_TEST_ALL is set");
            // Not with `eprintln!`: of a test that passes, nobody would see it.
            let word = format!("SKIPPED: {program} is not installed, so it was not asked for its opinion\n");
            std::io::stderr().write_all(word.as_bytes()).unwrap();
            return None;
        }
        Some(Self { program, directory: TempDir::new().unwrap() })
    }

    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        let output = Command::new(self.program).current_dir(&self.directory).args(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        Said { success: output.status.success(), text: String::from_utf8_lossy(&text).into_owned() }
    }

    #[track_caller]
    pub(crate) fn succeed(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert!(said.success, "{} {arguments:?}: {}", self.program, said.text);
        said.text
    }
}

pub(crate) fn openssl() -> Option<Tool> {
    Tool::find("openssl")
}

pub(crate) fn ssh_keygen() -> Option<Tool> {
    Tool::find("ssh-keygen")
}

pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    pem::encode(&pem::Pem::new(label, der))
}

/// An SSH key or certificate in wire form as a line of text.
pub(crate) fn openssh_line(wire: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let length = u32::from_be_bytes(wire[..4].try_into().unwrap()) as usize;
    let kind = std::str::from_utf8(&wire[4..4 + length]).unwrap();
    format!("{kind} {}\n", STANDARD.encode(wire))
}
