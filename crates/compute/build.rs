//! Reports plainly that the console's page is missing, if it is. The page is built with npm (`make web`), which a build
//! with cargo alone must not need: nothing is fetched here.

fn main() {
    let page = "../../web/console/dist/index.html";
    println!("cargo::rerun-if-changed=../../web/console/dist");
    if std::path::Path::new(page).exists() {
        return;
    }
    let missing = format!("{page} is missing: `make web` builds it (with node and npm)");
    // A release must be complete; for other work the page is not needed.
    match std::env::var("PROFILE").as_deref() {
        Ok("release") => println!("cargo::error={missing}"),
        _ => println!("cargo::warning={missing}; until then the console's page answers 500"),
    }
}
