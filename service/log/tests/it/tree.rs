//! Roots.

use join_log::Tree;
use proptest::prelude::*;

use crate::{naive, numbers};

#[test]
fn roots_are_those_of_the_test_vectors() {
    let vectors = [
        (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (1, "db3426e878068d28d269b6c87172322ce5372b65756d0789001d34835f601c03"),
        (2, "cb00989d94a569c0a678ae042b63dcd4625db96440517f37a6eb7976ea24ed4b"),
        (3, "725d5230db68f557470dc35f1d8865813acd7ebb07ad152774141decbae71327"),
        (7, "a3e23b32ccb6bf96d092d165d8aa546e09829de8f03b0e8957581d1e16b92bdf"),
        (8, "3b85a9626c1ccb64c6b95ec7fa64888defe2cf12e39e77e10812ce5fcb9cb58e"),
        (256, "828515d033c19d8c901f37eccb8aed919667703486f8d2fff1cf7040321c5db1"),
        (257, "1eda049a4351d86f76252bd7ec0b7746ad75b7fa0316ad5f541dbda458a312c4"),
        (300, "84e13ec1e037155ae619757599b2cd21ada5a565e0fd9b3139c0c3c6c1b8ada9"),
    ];
    for (size, root) in vectors {
        let mut tree = Tree::default();
        for entry in numbers(0..size) {
            tree.append(&entry);
        }
        assert_eq!((tree.size(), hex::encode(tree.root())), (size, root.to_owned()));
    }
}

#[test]
fn peaks_must_fit_the_size() {
    assert!(Tree::from_peaks(0, vec![]).is_ok());
    assert!(Tree::from_peaks(6, vec![[1; 32], [2; 32]]).is_ok());
    let wrong = Tree::from_peaks(7, vec![[1; 32]]).unwrap_err();
    assert_eq!(wrong.to_string(), "a tree of 7 entries has 3 peaks, not 1");
}

proptest! {
    #[test]
    fn a_tree_continued_from_its_peaks_has_the_root_of_the_definition(
        first in prop::collection::vec(any::<Vec<u8>>(), 0..70),
        second in prop::collection::vec(any::<Vec<u8>>(), 0..70),
    ) {
        let mut tree = Tree::default();
        first.iter().for_each(|entry| { tree.append(entry); });
        let mut tree = Tree::from_peaks(tree.size(), tree.peaks().to_vec()).unwrap();
        second.iter().for_each(|entry| { tree.append(entry); });
        let leaves: Vec<_> = first.iter().chain(&second).map(|entry| naive::leaf(entry)).collect();
        prop_assert_eq!(tree.root(), naive::root(&leaves));
    }
}
