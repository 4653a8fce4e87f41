//! What was built, for reports of bugs.

/// The release.
pub(super) const RELEASE: &str = env!("CARGO_PKG_VERSION");
/// The commit that the sources are of, and whether they were changed since.
pub(super) const COMMIT: &str = env!("MONOSIGN_COMMIT");

/// Release, commit, features and compiler.
pub(super) fn text() -> String {
    let features = if cfg!(feature = "usb") { "usb" } else { "none" };
    format!("monosign {RELEASE}\ncommit   {COMMIT}\nfeatures {features}\nrustc    {}", env!("MONOSIGN_RUSTC"))
}
