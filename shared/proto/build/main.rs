//! Compiles every `.proto` below `proto/` with protox (no protoc) and writes the descriptor set with all custom
//! options and comments kept, which prost's own descriptor type would drop.

mod shapes;

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use prost::Message;

fn protos(dir: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            protos(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            found.push(path);
        }
    }
    Ok(())
}

/// The descriptor set of these files and of what they import.
fn compile(roots: &[PathBuf], files: &[PathBuf]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut compiler = protox::Compiler::new(roots)?;
    compiler.include_imports(true).include_source_info(true);
    for file in files {
        let name = roots.iter().find_map(|root| file.strip_prefix(root).ok());
        compiler.open_file(name.ok_or("a file outside of every root")?)?;
    }
    Ok(compiler.encode_file_descriptor_set())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo:rerun-if-changed={}", root.display());
    println!("cargo:rerun-if-changed=build");
    // Files are named relative to the root that they are imported from: the inner ones first.
    let roots = [root.join("third_party"), root.join("internal"), root.clone()];
    let mut files = Vec::new();
    protos(&root, &mut files)?;
    files.sort();
    let internal = &roots[1];
    let published: Vec<PathBuf> = files.iter().filter(|file| !file.starts_with(internal)).cloned().collect();
    fs::write(out.join("published.binpb"), compile(&roots, &published)?)?;
    let bytes = compile(&roots, &files)?;
    let set = prost_types::FileDescriptorSet::decode(bytes.as_slice())?;
    fs::write(out.join("descriptors.binpb"), &bytes)?;
    let pool = prost_reflect::DescriptorPool::decode(bytes.as_slice())?;
    fs::write(out.join("shapes.rs"), shapes::write(&pool)?)?;

    let mut config = prost_build::Config::new();
    config.enable_type_names();
    config.type_name_domain(["."], "type.googleapis.com");

    // Their examples of protos would be taken for Rust.
    config.disable_comments([".buf"]);
    config.include_file("pavior_api.rs");
    tonic_prost_build::configure().build_transport(false).compile_fds_with_config(set, config)?;
    Ok(())
}
