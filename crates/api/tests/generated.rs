//! The committed code is of the schema. `COUNTERSIGN_BLESS=1 cargo test -p countersign-api --test generated` writes it
//! again.

use std::path::Path;

const SCHEMA: &str = "countersign/v1/cluster.proto";
const CODE: &str = "countersign.v1.rs";

#[test]
fn committed_code_is_of_the_schema() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = tempfile::tempdir().unwrap();
    // In Rust alone: no `protoc` binary is needed.
    let schema = protox::compile([SCHEMA], [root.join("proto")]).unwrap();
    tonic_prost_build::configure().bytes(".").out_dir(made.path()).compile_fds(schema).unwrap();
    let (made, committed) = (made.path().join(CODE), root.join("src/generated").join(CODE));
    if std::env::var_os("COUNTERSIGN_BLESS").is_some() {
        std::fs::copy(&made, &committed).unwrap();
    }
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    assert!(read(&made) == read(&committed), "the schema has changed: write the code again with COUNTERSIGN_BLESS=1");
}
