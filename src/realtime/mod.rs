//! Stub.
use crate::app::App;
use std::sync::Arc;
/// Socket.IO.
pub fn layer(app: Arc<App>) -> socketioxide::layer::SocketIoLayer {
    let (layer, _io) = socketioxide::SocketIo::builder().with_state(app).build_layer();
    layer
}
