//! Names, widths and bytes of tiles.

use join_log::tile::{Bundle, Edge, FULL, entries_from_bytes};
use join_log::{Hash, Layer, MAX_ENTRY, Tile};
use proptest::prelude::*;

use crate::naive;

#[test]
fn names_are_grouped_by_three_digits() {
    let name = |layer, index, width| Tile { layer, index, width }.to_string();
    assert_eq!(name(Layer::Hashes(0), 5, FULL), "tile/0/005");
    assert_eq!(name(Layer::Hashes(1), 1000, FULL), "tile/1/x001/000");
    assert_eq!(name(Layer::Hashes(0), 1_234_067, 44), "tile/0/x001/x234/067.p/44");
    assert_eq!(name(Layer::Entries, 0, 1), "tile/entries/000.p/1");
    assert_eq!(Tile { layer: Layer::Entries, index: 7, width: 9 }.partials(), "tile/entries/007.p");
}

#[test]
fn only_the_one_spelling_of_a_name_is_read() {
    let wrong = [
        "tile/0/5",
        "tile/00/005",
        "tile/64/005",
        "tile/0/x001/x234",
        "tile/0/001/067",
        "tile/0/x000/005",
        "tile/0/005.p/0",
        "tile/0/005.p/256",
        "tile/0/005.p/07",
        "tile/0/+05",
        "tile/0/../005",
        "tile/entries",
        "0/005",
        "tile/-1/005",
        "tile/0/x018/x446/x744/x073/x709/x551/616",
        "checkpoint",
        "",
    ];
    for path in wrong {
        assert_eq!(Tile::parse(path), None, "{path}");
    }
}

#[test]
fn widths_are_those_of_the_test_vectors() {
    let widths = |size: u64| -> Vec<(u64, u64)> {
        Layer::of(size).skip(1).map(|layer| (layer.slots(size) / 256, layer.slots(size) % 256)).collect()
    };
    assert_eq!(widths(256), [(1, 0), (0, 1)]);
    assert_eq!(widths(300), [(1, 44), (0, 1)]);
    assert_eq!(widths(70_000), [(273, 112), (1, 17), (0, 1)]);
    assert_eq!(widths(0), []);
    assert_eq!(Layer::of(u64::MAX).count(), 9, "the entries and eight levels");
}

#[test]
fn bundles_are_those_of_the_test_vectors() {
    let mut bundle = Bundle::default();
    for entry in [b"a".as_slice(), b"", b"xyz"] {
        assert!(bundle.push(entry));
    }
    assert_eq!(hex::encode(bundle.bytes()), "0001610000000378797a");
    assert_eq!(entries_from_bytes(bundle.bytes()).unwrap(), [b"a".as_slice(), b"", b"xyz"]);
    assert_eq!(entries_from_bytes(&bundle.bytes()[..9]), None, "the last entry is cut off");
    assert!(bundle.push(&vec![0; MAX_ENTRY]));
    let before = bundle.clone();
    assert!(!bundle.push(&vec![0; MAX_ENTRY + 1]));
    assert_eq!(bundle, before);
}

proptest! {
    #[test]
    fn names_are_read_back(entries: bool, level in 0u8..64, index: u64, width in 1u16..=256) {
        let layer = if entries { Layer::Entries } else { Layer::Hashes(level) };
        let tile = Tile { layer, index, width };
        prop_assert_eq!(Tile::parse(&tile.to_string()), Some(tile));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn growing_yields_every_full_tile_once_and_the_roots_of_what_they_cover(size in 0u64..70_000) {
        let leaves: Vec<Hash> = (0..size).map(|i| naive::leaf(&i.to_be_bytes())).collect();
        let mut edge = Edge::default();
        let mut tiles: Vec<_> = leaves.iter().flat_map(|leaf| edge.append(*leaf)).collect();
        let full: usize = Layer::of(size).skip(1).map(|layer| layer.slots(size) as usize / 256).sum();
        prop_assert_eq!(tiles.len(), full);
        tiles.extend(edge.partials().map(|(tile, hashes)| (tile, hashes.to_vec())));
        for (tile, hashes) in tiles {
            let Layer::Hashes(level) = tile.layer else { panic!("a bundle among hash tiles") };
            prop_assert_eq!(hashes.len(), usize::from(tile.width));
            let slot = 256_usize.pow(level.into());
            let first = tile.index as usize * 256;
            for i in [0, hashes.len() - 1] {
                prop_assert_eq!(hashes[i], naive::root(&leaves[(first + i) * slot..(first + i + 1) * slot]));
            }
        }
        prop_assert_eq!(edge.tree().root(), naive::root(&leaves));
    }
}
