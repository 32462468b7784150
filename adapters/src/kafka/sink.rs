pub struct KafkaSink;
