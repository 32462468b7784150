//! Whatever happens to the directory of the index, answers are right and it is built anew.

use super::room::moody;
use super::*;

#[tokio::test]
async fn a_broken_directory_is_set_aside_and_rebuilt() {
    type Breaking = fn(&std::path::Path);
    let breakings: [(&str, bool, Breaking); 5] = [
        ("deleted", false, |dir| fs::remove_dir_all(dir).unwrap()),
        ("a file in its place", true, |dir| {
            fs::remove_dir_all(dir).unwrap();
            fs::create_dir(dir).unwrap();
            fs::create_dir(dir.join("db")).unwrap();
        }),
        ("a corrupt configuration", true, |dir| fs::write(dir.join("conf"), [0xa5; 300]).unwrap()),
        ("a corrupt db", false, |dir| {
            let bytes = fs::metadata(dir.join("db")).unwrap().len() as usize;
            fs::write(dir.join("db"), vec![0xa5; bytes]).unwrap();
        }),
        ("a truncated db", false, |dir| {
            let file = fs::OpenOptions::new().write(true).open(dir.join("db")).unwrap();
            file.set_len(file.metadata().unwrap().len() / 3).unwrap();
        }),
    ];
    let mut stand = Stand::new(11, 10_000).await;
    for (name, must_be_set_aside, breaking) in breakings {
        let index = stand.index();
        build(&index, usize::MAX);
        index.set_trees(None);
        let aside = index.dir.with_extension("broken");
        if aside.exists() {
            fs::remove_dir_all(&aside).unwrap();
        }
        breaking(&index.dir);
        let was_set_aside = check_rebuilt(&mut stand, Arc::new(index)).await;
        assert!(was_set_aside || !must_be_set_aside, "{name}");
    }
}

fn open_database(dir: &Path) -> sled::Db {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match sled::open(dir) {
            Ok(db) => return db,
            Err(_) if Instant::now() < deadline => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_value_that_is_missing_is_noticed_and_the_index_rebuilt() {
    let mut stand = Stand::new(13, 10_000).await;
    let index = stand.index();
    build(&index, usize::MAX);
    index.set_trees(None);
    let db = open_database(&index.dir);
    for name in db.tree_names() {
        let tree = db.open_tree(name).unwrap();
        for key in tree.iter().keys().map(Result::unwrap).filter(|key| b"itso".contains(&key[0])) {
            tree.remove(key).unwrap();
        }
    }
    drop(db);
    assert!(check_rebuilt(&mut stand, Arc::new(index)).await, "a look-up notices");
}

/// What a database that mixes up its pages would do: each value is whole, and none is where it belongs.
#[tokio::test]
async fn values_that_changed_places_are_noticed_and_the_index_rebuilt() {
    let mut stand = Stand::new(53, 10_000).await;
    let index = stand.index();
    build(&index, usize::MAX);
    index.set_trees(None);
    let db = open_database(&index.dir);
    for name in db.tree_names() {
        let tree = db.open_tree(name).unwrap();
        for kind in *b"its" {
            let entries: Vec<_> = tree.scan_prefix([kind]).map(Result::unwrap).collect();
            let values = entries.iter().map(|(_, value)| value).cycle().skip(1);
            for ((key, _), value) in entries.iter().zip(values) {
                tree.insert(key, value).unwrap();
            }
        }
    }
    drop(db);
    assert!(check_rebuilt(&mut stand, Arc::new(index)).await, "a look-up notices");
}

#[tokio::test]
async fn an_index_that_a_process_ended_over_is_not_opened_again() {
    let mut stand = Stand::new(59, 6_000).await;
    let index = stand.index();
    build(&index, usize::MAX);
    index.set_trees(None);
    assert!(!index.dir.join("opening").exists(), "the mark goes when it is open");
    fs::write(index.dir.join("opening"), "").unwrap();
    assert!(check_rebuilt(&mut stand, Arc::new(index)).await);
}

/// The log was put back to an earlier state, by a backup say, and went another way since.
#[tokio::test]
async fn an_index_of_another_life_of_the_log_is_not_believed() {
    let stand = Stand::new(61, 6_000).await;
    let earlier = stand.stop().await;
    let copy = TempDir::new().unwrap();
    copy_dir(earlier.path(), copy.path());
    let mut first_life = Stand::open(earlier, 1);
    first_life.publish(20_000).await;
    let index = first_life.index();
    build(&index, usize::MAX);
    index.set_trees(None);
    copy_dir(&first_life.dir.path().join("index"), &copy.path().join("index"));
    let mut second_life = Stand::open(copy, 2);
    second_life.publish(21_000).await;
    let index = second_life.index();
    build(&index, 0);
    second_life.check(&index);
    build(&index, usize::MAX);
    second_life.check(&index);
}

/// Copies of the directory, taken at any moment while the index is built, are what a `kill -9` leaves.
#[tokio::test]
async fn killed_at_any_moment_it_answers_right_afterwards() {
    let stand = Stand::new(67, 24_000).await;
    let index = Arc::new(stand.index());
    let running = run(&index);
    let mut copies = Vec::new();
    while index.state() != IndexState::Ready {
        copies.push(stand.copy());
    }
    copies.push(stand.copy());
    index.stop();
    running.join().unwrap();
    // The first, the last and some between.
    let step = copies.len().div_ceil(4);
    for (at, copy) in copies.into_iter().rev().enumerate().filter(|(at, _)| at % step == 0) {
        let mut taken_over = Stand::open(copy, at as u64);
        let index = Arc::new(taken_over.index());
        check_rebuilt(&mut taken_over, index).await;
    }
}

#[test]
fn a_panic_in_the_database_is_an_error() {
    let result: Result<(), _> = tree::guarded(|| panic!("index out of bounds"));
    assert_eq!(result.unwrap_err().to_string(), "panicked: index out of bounds");
}

/// Whatever bytes of whatever file are wrong, the answers are right, while the index finds out and afterwards.
#[tokio::test]
async fn random_damage_never_shows_in_an_answer() {
    let rounds = std::env::var("SLUICE_INDEX_ROUNDS").map_or(12, |rounds| rounds.parse().unwrap());
    let mut stand = Stand::new(19, 10_000).await;
    for seed in 0..rounds {
        let mut random = fastrand::Rng::with_seed(seed);
        let index = stand.index();
        build(&index, usize::MAX);
        index.set_trees(None);
        let files = fs::read_dir(&index.dir).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.filter(|path| path.is_file()).collect();
        files.sort();
        let path = &files[random.usize(0..files.len())];
        let mut bytes = fs::read(path).unwrap();
        match random.u32(0..3) {
            0 => bytes.truncate(random.usize(0..=bytes.len())),
            _ if bytes.is_empty() => bytes.push(1),
            1 => (0..random.usize(1..40)).for_each(|_| {
                let at = random.usize(0..bytes.len());
                bytes[at] = random.u8(..);
            }),
            _ => {
                let from = random.usize(0..bytes.len());
                let to = (from + 4096).min(bytes.len());
                random.fill(&mut bytes[from..to]);
            }
        }
        fs::write(path, bytes).unwrap();
        check_rebuilt(&mut stand, Arc::new(index)).await;
    }
}

#[tokio::test]
async fn an_open_that_panics_is_tried_again_on_a_new_directory() {
    let mut stand = Stand::new(23, 6_000).await;
    let index = stand.index();
    build(&index, usize::MAX);
    index.set_trees(None);
    let index = stand.index_with(Room { disk: moody(u64::MAX, true), free_bytes_min: 0 });
    assert!(check_rebuilt(&mut stand, Arc::new(index)).await, "the directory was set aside");
}

/// The last handle closes the database, which may block and panic; and what is broken in one is whole in the next.
#[tokio::test]
async fn a_look_up_that_outlives_its_database_keeps_it_from_closing_as_little_as_it_breaks_the_next() {
    let stand = Stand::new(73, 6_000).await;
    let index = stand.index();
    build(&index, usize::MAX);
    let segment = stand.log.reader().segments().remove(0);
    let view = index.view(&segment);
    let (before, _) = view.indexed.unwrap();
    assert!(index.value(&view, b'i', 0, None, |_| Some(())).is_some());
    index.set_trees(None);
    build(&index, 0);
    assert!(index.value(&view, b'i', 0, None, |_| Some(())).is_none(), "it is of the one before");
    index.report(before, IndexError::Inconsistent("of the one before"));
    assert!(index.control().broken.is_none());
    let (now, _) = index.view(&segment).indexed.unwrap();
    index.report(now, IndexError::Inconsistent("of this one"));
    assert!(index.control().broken.is_some());
}
