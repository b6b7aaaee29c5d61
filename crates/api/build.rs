//! Compiles the schema in Rust alone: no `protoc` binary is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let schema = protox::compile(["countersign/v1/cluster.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(schema)?;
    Ok(())
}
