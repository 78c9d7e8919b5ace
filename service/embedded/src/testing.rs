//! One server for all tests of a process, or of many processes.

use std::path::PathBuf;
use std::sync::OnceLock;

use crate::{Address, Cluster, Options};

/// Names the socket directory of a server that tests shall use; `private-postgres run` sets it.
pub const TEST_SERVER_VARIABLE: &str = "JOIN_TEST_POSTGRES";

/// A server for tests: the one that `JOIN_TEST_POSTGRES` names, else a temporary one that this process starts at the
/// first call. It trusts every role, the superuser is `postgres`, and each test makes a database of its own on it under
/// a name that no other test or process uses. Blocks the thread, for about two seconds at the first call.
///
/// # Panics
/// When there is no PostgreSQL or it doesn't start: no test that needs one can say anything then.
pub fn for_tests() -> &'static Address {
    static SHARED: OnceLock<(Address, Option<Cluster>)> = OnceLock::new();
    // The cluster is never dropped, as statics aren't; it ends and disappears with the process.
    let (address, _cluster) = SHARED.get_or_init(|| match std::env::var_os(TEST_SERVER_VARIABLE) {
        Some(socket_dir) => (Address::new(PathBuf::from(socket_dir)), None),
        None => match Cluster::temporary(&Options::fast()) {
            Ok(cluster) => (cluster.address().clone(), Some(cluster)),
            Err(error) => panic!("tests need a PostgreSQL server: {error}"),
        },
    });
    address
}
