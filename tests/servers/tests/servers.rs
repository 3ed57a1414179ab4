//! The servers: shared, own, and what they can do.

#![allow(clippy::disallowed_methods, reason = "the determinism fence is around the product, not around its observers")]
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test that can't go on panics")]

use auditlake_test_servers::aws::{
    Put, create_bucket, create_stream, dynamodb_client, is_open, kinesis_client, merge_shards, put_records, s3_client,
    shards, split_shard, unique_name,
};
use auditlake_test_servers::{FaultProxy, Kind, OwnServer, kinesis, ministack};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use aws_sdk_kinesis::types::{ShardIteratorType, StartingPosition, SubscribeToShardEventStream};

#[tokio::test]
async fn a_server_is_shared() {
    let (one, other) = tokio::join!(kinesis(), kinesis());
    assert_eq!(one, other);
    assert_ne!(one, ministack().await);
}

#[tokio::test]
async fn an_own_server_is_another_and_ends_with_its_test() {
    let (own, shared) = tokio::join!(OwnServer::start(Kind::Ministack), ministack());
    assert_ne!(own.url, shared.url);
    create_bucket(&s3_client(&own.url), &unique_name("own")).await;
    let address = own.url.trim_start_matches("http://").to_owned();
    drop(own);
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[tokio::test]
async fn streams_are_split_and_merged() {
    let client = kinesis_client(&kinesis().await.url);
    let stream = unique_name("stream");
    create_stream(&client, &stream, 2).await;
    let parent = shards(&client, &stream).await[0].shard_id().to_owned();
    let children = split_shard(&client, &stream, &parent).await;
    assert_eq!(children.len(), 2);
    let merged = merge_shards(&client, &stream, &children[0], &children[1]).await;
    let all = shards(&client, &stream).await;
    assert_eq!(all.len(), 5);
    let merged = all.iter().find(|shard| shard.shard_id() == merged).unwrap();
    assert_eq!(merged.parent_shard_id(), Some(children[0].as_str()));
    assert_eq!(merged.adjacent_parent_shard_id(), Some(children[1].as_str()));
    assert_eq!(all.iter().filter(|shard| is_open(shard)).count(), 2);
}

#[tokio::test]
async fn records_are_put_and_read_through_a_proxy() {
    let proxy = FaultProxy::start(&kinesis().await.url).await;
    let client = kinesis_client(proxy.url());
    let stream = unique_name("stream");
    create_stream(&client, &stream, 2).await;
    let second = shards(&client, &stream).await.remove(1);
    let records: Vec<Put> = (0..700).map(|n| Put::to_shard(&second, format!("record {n}"))).collect();
    let places = put_records(&client, &stream, &records).await;
    assert_eq!(places.len(), 700);
    assert!(places.iter().all(|(shard, _)| shard == second.shard_id()));

    let iterator = client.get_shard_iterator().stream_name(&stream).shard_id(second.shard_id());
    let iterator = iterator.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.unwrap();
    let read = client.get_records().shard_iterator(iterator.shard_iterator().unwrap()).send().await.unwrap();
    let read: Vec<_> = read.records().iter().map(|record| record.sequence_number().to_owned()).collect();
    assert_eq!(read, places.iter().map(|(_, number)| number.clone()).collect::<Vec<_>>());
    assert_eq!((proxy.count("PutRecords"), proxy.count("GetRecords")), (2, 1));
    assert!(proxy.requests().iter().all(|request| request.status == Some(200)));
}

#[tokio::test]
async fn events_of_a_subscription_pass_a_proxy_as_they_come() {
    let proxy = FaultProxy::start(&kinesis().await.url).await;
    let client = kinesis_client(proxy.url());
    let stream = unique_name("stream");
    create_stream(&client, &stream, 1).await;
    let arn = client.describe_stream_summary().stream_name(&stream).send().await.unwrap();
    let arn = arn.stream_description_summary().unwrap().stream_arn().to_owned();
    let consumer = client.register_stream_consumer().stream_arn(arn).consumer_name("reader").send().await.unwrap();
    let consumer = consumer.consumer().unwrap().consumer_arn().to_owned();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let shard = shards(&client, &stream).await.remove(0);
    let from = StartingPosition::builder().r#type(ShardIteratorType::TrimHorizon).build().unwrap();
    let subscribed =
        client.subscribe_to_shard().consumer_arn(consumer).shard_id(shard.shard_id()).starting_position(from);
    let mut events = subscribed.send().await.unwrap().event_stream;
    put_records(&client, &stream, &[Put::new("a", "one")]).await;
    loop {
        if let Some(SubscribeToShardEventStream::SubscribeToShardEvent(event)) = events.recv().await.unwrap()
            && let [record] = event.records()
        {
            assert_eq!(record.data().as_ref(), b"one");
            break;
        }
    }
}

#[tokio::test]
async fn objects_of_any_size_pass_a_proxy() {
    let proxy = FaultProxy::start(&ministack().await.url).await;
    let client = s3_client(proxy.url());
    let bucket = unique_name("bucket");
    create_bucket(&client, &bucket).await;
    for size in [0, 1, 70_000, 9_000_000] {
        let body = vec![7; size];
        client.put_object().bucket(&bucket).key("a/b c").body(body.clone().into()).send().await.unwrap();
        let read = client.get_object().bucket(&bucket).key("a/b c").send().await.unwrap();
        assert!(read.body.collect().await.unwrap().into_bytes() == body, "{size} bytes");
        let head = client.head_object().bucket(&bucket).key("a/b c").send().await.unwrap();
        assert_eq!(head.content_length(), Some(i64::try_from(size).unwrap()));
    }
    assert_eq!((proxy.count("PutObject"), proxy.count("GetObject"), proxy.count("HeadObject")), (4, 4, 4));
}

#[tokio::test]
async fn tables_work() {
    let client = dynamodb_client(&ministack().await.url);
    let table = unique_name("table");
    let key =
        AttributeDefinition::builder().attribute_name("k").attribute_type(ScalarAttributeType::S).build().unwrap();
    let schema = KeySchemaElement::builder().attribute_name("k").key_type(KeyType::Hash).build().unwrap();
    let created = client.create_table().table_name(&table).attribute_definitions(key).key_schema(schema);
    created.billing_mode(BillingMode::PayPerRequest).send().await.unwrap();
    let put = || {
        let put = client.put_item().table_name(&table).item("k", AttributeValue::S("a".into()));
        put.condition_expression("attribute_not_exists(k)").send()
    };
    put().await.unwrap();
    assert!(put().await.unwrap_err().into_service_error().is_conditional_check_failed_exception());
}
