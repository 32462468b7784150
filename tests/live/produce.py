"""Clients that are not ours: pika and nats-py. The senders read JSON lines {"headers": {...}, "content_type": ..., "body": ...}."""

import asyncio
import json
import sys


def amqp(url, queue):
    import pika

    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.queue_declare(queue, durable=True)
    channel.confirm_delivery()
    for line in sys.stdin:
        message = json.loads(line)
        properties = pika.BasicProperties(
            content_type=message.get("content_type"), headers=message["headers"], delivery_mode=2
        )
        channel.basic_publish("", queue, message["body"].encode(), properties)
    connection.close()


async def nats(url, stream):
    import nats as client

    connection = await client.connect(url)
    jetstream = connection.jetstream()
    await jetstream.add_stream(name=stream, subjects=[stream.lower() + ".>"])
    for line in sys.stdin:
        message = json.loads(line)
        headers = dict(message["headers"])
        if message.get("content_type"):
            headers["Content-Type"] = message["content_type"]
        await jetstream.publish(stream.lower() + ".a", message["body"].encode(), headers=headers or None)
    await connection.close()


async def consumer(url, stream):
    """A durable consumer that has what is not acknowledged delivered again after 6 s, not after 30 s."""
    import nats as client
    from nats.js.api import AckPolicy, ConsumerConfig

    connection = await client.connect(url)
    config = ConsumerConfig(
        durable_name="sluice", ack_policy=AckPolicy.EXPLICIT, ack_wait=6, max_ack_pending=2048
    )
    await connection.jetstream().add_consumer(stream, config)
    await connection.close()


if sys.argv[1] == "amqp":
    amqp(*sys.argv[2:])
else:
    asyncio.run({"nats": nats, "consumer": consumer}[sys.argv[1]](*sys.argv[2:]))
