/// Stands before the kind of a header's value that no attribute can have. No UTF-8 begins with it.
pub const ILLEGAL: u8 = 0xff;
