//! Manifests that are cut off, flipped and put together wrongly.

use super::super::layout;
use super::*;

const FILE: &str = "manifest-0000000001";

/// The bytes of a manifest, the contents after each unit, and where each begins.
fn made(base_units: bool) -> (Vec<u8>, Vec<Contents>, Vec<u64>) {
    let disk = SimDisk::new(1);
    let mut manifest = Manifest::create(&door(&disk), STORE).expect("created");
    let mut random = Random::new(11);
    let mut contents = nothing();
    if base_units {
        contents = with(contents, &random_edits(&mut random));
        manifest.rewrite(contents.edits()).expect("rewritten");
    }
    let (mut all, mut begins) = (vec![contents.clone()], Vec::new());
    for _ in 0..4 {
        let edits = random_edits(&mut random);
        begins.push(manifest.file_bytes());
        manifest.append(edits.clone()).expect("appended");
        contents = with(contents, &edits);
        all.push(contents.clone());
    }
    let name = disk.files().remove(0).0;
    (disk.bytes_of(&name).expect("there"), all, begins)
}

fn open_bytes(
    name: &str,
    bytes: &[u8],
) -> Result<Option<(Manifest, Contents, Option<Cut>)>, ManifestError> {
    let disk = SimDisk::new(2);
    let file = disk.create(name).expect("room");
    write_all_at(&*file, bytes, 0).expect("room");
    Manifest::open(&door(&disk))
}

#[test]
fn wherever_it_is_cut_whole_units_are_left_and_it_goes_on() {
    for (base, name) in [(false, FILE), (true, "manifest-0000000002")] {
        let (bytes, all, begins) = made(base);
        for length in 0..bytes.len() as u64 {
            let result = open_bytes(name, &bytes[..length as usize]);
            if length < begins[0] {
                let error = result.err().expect("what was safe is missing");
                assert!(error.to_string().contains(name), "{error}");
                continue;
            }
            let (mut manifest, found, cut) = result.expect("readable").expect("there");
            let units = begins.iter().filter(|begin| **begin <= length).count() - 1;
            let end = begins[units];
            assert_eq!(found, all[units], "cut to {length}");
            let told = cut.map(|cut| (cut.offset, cut.bytes));
            assert_eq!(told, (end < length).then_some((end, length - end)));
            let more = [Edit::Era { n: 99 }];
            manifest.append(more.clone()).expect("appended");
            let disk = manifest.disk.clone();
            assert_eq!(contents_of(&disk), with(found, &more));
        }
    }
}

#[test]
fn whatever_bit_flips_it_says_what_was_there_or_that_it_is_damaged() {
    for (base, name) in [(false, FILE), (true, "manifest-0000000002")] {
        let (bytes, all, begins) = made(base);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match open_bytes(name, &flipped) {
                Ok(found) => {
                    let (_, found, cut) = found.expect("there");
                    if cut.is_some() {
                        assert_eq!(found, all[3], "bit {bit}");
                        assert!((bit / 8) as u64 >= begins[3]);
                    } else {
                        // Between units, where nothing is kept.
                        assert_eq!(found, all[4], "bit {bit}");
                    }
                }
                Err(error) => {
                    assert!(((bit / 8) as u64) < begins[3], "bit {bit}");
                    assert!(error.to_string().contains(name), "{error}");
                }
            }
        }
    }
}

#[test]
fn damage_before_the_last_unit_is_told_by_its_offset() {
    let (mut bytes, _, begins) = made(true);
    bytes[begins[1] as usize..begins[2] as usize].fill(0);
    let error = open_bytes("manifest-0000000002", &bytes).err();
    let error = error.expect("damaged").to_string();
    assert!(error.contains(&format!("offset {}", begins[1])), "{error}");
    assert!(error.contains("restore"), "{error}");
}

#[test]
fn a_later_unit_is_found_far_behind_damage() {
    let disk = SimDisk::new(1);
    let mut manifest = Manifest::create(&door(&disk), STORE).expect("created");
    let long = "x".repeat(3 << 20);
    let begin = manifest.file_bytes();
    for stream in [long.as_str(), "last"] {
        let gone = Edit::Gone { stream, group: "" };
        manifest.append([gone]).expect("appended");
    }
    disk.flip_bit(FILE, begin + 100, 3);
    let error = Manifest::open(&door(&disk)).err().expect("damaged");
    assert!(matches!(error, ManifestError::Damaged { offset, .. } if offset == begin));
}

#[test]
fn units_of_another_manifest_or_in_another_order_do_not_count() {
    let (bytes, all, begins) = made(false);
    let disk = SimDisk::new(3);
    let other = *b"another store id";
    let mut manifest = Manifest::create(&door(&disk), other).expect("created");
    manifest.append([Edit::Era { n: 5 }]).expect("appended");
    let mut mixed = disk.bytes_of(FILE).expect("there")[..begins[0] as usize].to_vec();
    mixed.extend_from_slice(&bytes[begins[0] as usize..]);
    let (_, found, cut) = open_bytes(FILE, &mixed).expect("readable").expect("there");
    assert_eq!(found.store_id, other);
    assert_eq!(found.streams, all[0].streams);
    assert!(cut.is_some());
    let part = |from: usize, to: usize| &bytes[begins[from] as usize..begins[to] as usize];
    let head = &bytes[..begins[0] as usize];
    for parts in [[head, part(1, 2)], [head, part(1, 3)]] {
        assert!(open_bytes(FILE, &parts.concat()).is_err());
    }
    let twice = [head, part(0, 1), part(0, 1)].concat();
    assert!(open_bytes(FILE, &twice).is_err());
}

#[test]
fn headers_that_cannot_be_are_told() {
    let (bytes, _, _) = made(false);
    let mut newer = bytes.clone();
    let mark = super::super::super::format_mark::encode(*b"iiimanif", layout::VERSION + 6);
    newer[..16].copy_from_slice(&mark);
    let error = open_bytes(FILE, &newer).err().expect("newer").to_string();
    assert!(
        error.contains("version 7") && error.contains("version 1"),
        "{error}"
    );
    let error = open_bytes("manifest-0000000009", &bytes).err();
    let error = error.expect("renamed").to_string();
    assert!(
        error.contains("manifest-0000000009") && error.contains("manifest 1"),
        "{error}"
    );
    let error = open_bytes(FILE, &[0; 4096]).err().expect("zeros");
    assert!(
        matches!(error, ManifestError::DamagedHeader { .. }),
        "{error}"
    );
}

#[test]
fn units_of_no_sense_are_errors_and_take_no_memory() {
    let header = Header {
        store_id: STORE,
        number: 1,
        base: BEGIN,
    };
    let mut random = Random::new(12);
    let mut good = Encoder::default();
    for edit in random_edits(&mut random) {
        good.push(&edit);
    }
    for _ in 0..20_000 {
        let mut body = if random.below(2) == 0 {
            let count = random.below(40) as usize;
            random.bytes(count)
        } else {
            let mut body = good.bytes.clone();
            let at = random.below(body.len() as u64) as usize;
            body[at] = random.next() as u8;
            body.truncate(1 + random.below(body.len() as u64) as usize);
            body
        };
        if random.below(2) == 0 && !body.is_empty() {
            body[0] = 1;
        }
        let (unit, end) = unit(&body, BEGIN, header.seed());
        let bytes = [&header.encode()[..], &unit[..]].concat();
        assert_eq!(bytes.len() as u64, end.offset);
        // Some make sense by chance; none may panic.
        if let Err(error) = open_bytes(FILE, &bytes) {
            assert!(
                matches!(error, ManifestError::Damaged { offset: 64, .. }),
                "{error}"
            );
        }
    }
}
