//! The committed code is of the schema. `COUNTERSIGN_BLESS=1 cargo test -p countersign-api --test generated` writes it
//! again.

use std::path::Path;

use prost::Message;

const SCHEMA: &str = "countersign/v1/cluster.proto";
const CODE: &str = "countersign.v1.rs";
const DESCRIPTORS: &str = "countersign.v1.binpb";

#[test]
fn committed_code_is_of_the_schema() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = tempfile::tempdir().unwrap();
    // In Rust alone: no `protoc` binary is needed.
    let schema = protox::compile([SCHEMA], [root.join("proto")]).unwrap();
    let mut bare = schema.clone();
    bare.file.iter_mut().for_each(|file| file.source_code_info = None);
    std::fs::write(made.path().join(DESCRIPTORS), bare.encode_to_vec()).unwrap();
    tonic_prost_build::configure().bytes(".").out_dir(made.path()).compile_fds(schema).unwrap();
    for file in [CODE, DESCRIPTORS] {
        let (made, committed) = (made.path().join(file), root.join("src/generated").join(file));
        if std::env::var_os("COUNTERSIGN_BLESS").is_some() {
            std::fs::copy(&made, &committed).unwrap();
        }
        let read = |path: &Path| std::fs::read(path).unwrap_or_default();
        assert!(read(&made) == read(&committed), "the schema has changed: write {file} again with COUNTERSIGN_BLESS=1");
    }
}
