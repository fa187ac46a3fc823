//! Says in words that the console's page is missing, where it is. The page is built with npm (`make web`), which a
//! build with cargo alone must not need: nothing is fetched here.

fn main() {
    let page = "../../web/console/dist/index.html";
    println!("cargo::rerun-if-changed=../../web/console/dist");
    if std::path::Path::new(page).exists() {
        return;
    }
    let missing = format!("{page} is missing: `make web` builds it (with node and npm)");
    // What is released must be whole; whoever works on something else need not have it.
    match std::env::var("PROFILE").as_deref() {
        Ok("release") => println!("cargo::error={missing}"),
        _ => println!("cargo::warning={missing}; until then the console's page answers 500"),
    }
}
