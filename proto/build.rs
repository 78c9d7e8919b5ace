//! Compiles the `.proto` files without protoc, and keeps their descriptors for JSON, reflection and OpenAPI.

use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 4] = [
    "teleport/join/v1/joinservice.proto",
    "joinauthority/v1/options.proto",
    "joinauthority/v1/resources.proto",
    "joinauthority/v1/services.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo::rerun-if-changed={file}");
    }
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    // This encoding keeps the options of methods, which the plain descriptor types would drop.
    let descriptors = PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin");
    fs::write(descriptors, compiler.encode_file_descriptor_set())?;

    let mut builder = tonic_prost_build::configure();
    for message in compiler.descriptor_pool().all_messages() {
        let name = message.full_name();
        if !message.is_map_entry() && !name.starts_with("google.") {
            builder = builder.message_attribute(
                name,
                format!(
                    "#[derive(::prost_reflect::ReflectMessage)]\n\
                     #[prost_reflect(message_name = \"{name}\", descriptor_pool = \"crate::DESCRIPTORS\")]"
                ),
            );
        }
    }
    builder.compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
