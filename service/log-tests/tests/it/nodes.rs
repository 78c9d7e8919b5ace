//! Many nodes, one log.

use join_log_tests::files;

use crate::authority::{Authority, Spec};

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_directories_of_their_own_publish_the_same() {
    let authority = Authority::new().await;
    let nodes = [
        authority.node(Spec { directory: "one", ..Spec::default() }).await,
        authority.node(Spec { directory: "two", ..Spec::default() }).await,
    ];
    for times in [1, 150, 120] {
        authority.happens(times).await;
        let (one, two) = tokio::join!(nodes[0].publishes_all(), nodes[1].publishes_all());
        assert_eq!(one.to_string(), two.to_string());
        assert!(one.is_signed_by(&nodes[0].log_key()));
    }
    let late = authority.node(Spec { directory: "late", ..Spec::default() }).await;
    let note = late.publishes_all().await;
    assert_eq!(note.to_string(), nodes[0].note().unwrap().to_string());
    for node in nodes.into_iter().chain([late]) {
        node.stop().await;
    }
    // Partial tiles of sizes in between depend on the moment; full ones, and those of the last checkpoint, don't.
    let size = note.checkpoint().unwrap().size;
    let of = |directory: &str| {
        let mut files = files(&authority.path(directory)).unwrap();
        files.retain(|name, _| !name.contains(".p/") || name.ends_with(&format!("/{}", size % 256)));
        files
    };
    let (one, two, late) = (of("one"), of("two"), of("late"));
    assert!(one.contains_key("tile/0/000") && one.contains_key("tile/entries/000"), "{:?}", one.keys());
    assert_eq!(one.keys().collect::<Vec<_>>(), two.keys().collect::<Vec<_>>());
    assert!(one == two && two == late, "the files differ");
}

/// Whoever waits for a moment without news waits as long as the load lasts.
#[tokio::test(flavor = "multi_thread")]
async fn entries_that_keep_coming_are_sealed_meanwhile() {
    let authority = Authority::new().await;
    let node = authority.node(Spec::default()).await;
    let before = node.publishes_all().await.checkpoint().unwrap().size;
    let sealed = async {
        for sealed in 1..=3 {
            node.publishes(|note| note.checkpoint().unwrap().size > before + 20 * sealed).await;
        }
    };
    authority.happens_during(sealed).await;
    node.stop().await;
}
