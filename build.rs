//! Reports plainly that the dashboard is missing, if it is. It is built with npm (`make web`), which a build with cargo
//! alone must not need: nothing is fetched here.

fn main() {
    let page = "dashboard/dist/index.html";
    println!("cargo::rerun-if-changed=dashboard/dist");
    if std::path::Path::new(page).exists() {
        return;
    }
    let missing = format!("{page} is missing: `make web` builds it (with node and npm)");
    // A release must be complete; for other work the dashboard is not needed.
    match std::env::var("PROFILE").as_deref() {
        Ok("release") => println!("cargo::error={missing}"),
        _ => println!("cargo::warning={missing}; until then the dashboard answers 500"),
    }
}
