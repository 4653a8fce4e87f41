//! What the simulator needs stays out of the product.

use std::fs;
use std::path::Path;

#[test]
fn the_product_depends_on_no_simulator() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let lock = fs::read_to_string(root.join("Cargo.lock")).unwrap();
    assert!(lock.contains("name = \"monosign\""), "it is the product's lock file");
    for package in ["turmoil", "monosign-scenarios"] {
        assert!(!lock.contains(&format!("name = \"{package}\"")), "{package} is in the product's lock file");
    }
    let settings = root.join(".cargo/config.toml");
    let unstable = fs::read_to_string(settings).is_ok_and(|text| text.contains("tokio_unstable"));
    assert!(!unstable, "tokio_unstable is the simulator's alone");
}
