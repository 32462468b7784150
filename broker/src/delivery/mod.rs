//! stub until the real one is merged
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Attempts,
    Age,
}
impl Reason {
    pub fn as_str(self) -> &'static str {
        "attempts"
    }
    pub fn parse(_: &str) -> Option<Self> {
        Some(Self::Attempts)
    }
    pub fn from_code(_: u8) -> Option<Self> {
        Some(Self::Attempts)
    }
}
