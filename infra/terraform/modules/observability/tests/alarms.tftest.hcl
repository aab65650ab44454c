mock_provider "aws" {
  mock_resource "aws_sns_topic" {
    defaults = { arn = "arn:aws:sns:eu-central-1:123456789012:loraplex-alarms" }
  }
}

variables {
  name            = "loraplex"
  balancer        = { arn_suffix = "app/l/1", target_suffix = "targetgroup/t/1" }
  cluster         = "loraplex"
  services        = ["api", "scaler", "tasks", "jobs"]
  database_id     = "loraplex"
  valkey_instance = { id = "i-1" }
  kms_key_arn     = "arn:aws:kms:eu-central-1:123456789012:key/k"
  emails          = ["ops@example.com"]
}

run "what_users_would_notice_is_told" {
  assert {
    condition     = output.alarms == tolist(["api-errors", "database-cpu", "database-disk", "no-api", "no-jobs", "no-scaler", "no-tasks", "valkey"])
    error_message = "An alarm for each part."
  }
  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.this : contains(alarm.alarm_actions, aws_sns_topic.alarms.arn)])
    error_message = "Somebody is told."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["no-api"].treat_missing_data == "breaching"
    error_message = "Silence is an alarm where something should be."
  }
}

run "a_managed_queue_has_no_machine" {
  variables {
    valkey_instance = null
  }
  assert {
    condition     = !contains(output.alarms, "valkey")
    error_message = "There is no machine to watch."
  }
}
