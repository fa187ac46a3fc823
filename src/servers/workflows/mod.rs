//! Stub.
pub fn all() -> Vec<Box<dyn crate::operations::AnyWorkflow>> {
    vec![]
}
