# Alarms on what users would notice, and on what is about to be full; by mail or whatever else reads
# the topic. The platform's own metrics are Prometheus': GET /api/v1/metrics/targets lists what to
# scrape, infra/monitoring has the dashboard and the alerts.

variable "name" {
  type = string
}

variable "balancer" {
  type = object({ arn_suffix = string, target_suffix = string })
}

variable "cluster" {
  type = string
}

variable "services" {
  type = list(string)
}

variable "database_id" {
  type = string
}

variable "valkey_instance" {
  description = "null where Valkey is managed."
  type        = object({ id = string })
  default     = null
}

variable "kms_key_arn" {
  type = string
}

variable "emails" {
  description = "Who is told; each has to confirm once."
  type        = list(string)
  default     = []
}

resource "aws_sns_topic" "alarms" {
  name              = "${var.name}-alarms"
  kms_master_key_id = var.kms_key_arn
}

resource "aws_sns_topic_subscription" "email" {
  for_each  = toset(var.emails)
  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.key
}

locals {
  balancer = { LoadBalancer = var.balancer.arn_suffix }
  target   = merge(local.balancer, { TargetGroup = var.balancer.target_suffix })
  database = { DBInstanceIdentifier = var.database_id }
  alarms = merge({
    no-api = {
      told       = "No API answers.", namespace = "AWS/ApplicationELB", metric = "HealthyHostCount", statistic = "Minimum"
      dimensions = local.target, below = true, threshold = 1, minutes = 2
    }
    api-errors = {
      told       = "Requests are answered with 5xx.", namespace = "AWS/ApplicationELB", metric = "HTTPCode_Target_5XX_Count", statistic = "Sum"
      dimensions = local.target, below = false, threshold = 20, minutes = 5
    }
    database-disk = {
      told       = "The database's disk is nearly full.", namespace = "AWS/RDS", metric = "FreeStorageSpace", statistic = "Minimum"
      dimensions = local.database, below = true, threshold = 2147483648, minutes = 5
    }
    database-cpu = {
      told       = "The database is busy.", namespace = "AWS/RDS", metric = "CPUUtilization", statistic = "Average"
      dimensions = local.database, below = false, threshold = 85, minutes = 15
    }
    }, {
    for service in var.services : "no-${service}" => {
      told       = "Nothing of the service ${service} runs.", namespace = "ECS/ContainerInsights", metric = "RunningTaskCount", statistic = "Minimum"
      dimensions = { ClusterName = var.cluster, ServiceName = service }, below = true, threshold = 1, minutes = 3
    } if service != "api"
    }, {
    for instance in var.valkey_instance[*] : "valkey" => {
      told       = "Valkey's machine fails its checks.", namespace = "AWS/EC2", metric = "StatusCheckFailed", statistic = "Maximum"
      dimensions = { InstanceId = instance.id }, below = false, threshold = 1, minutes = 2
    }
  })
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each            = local.alarms
  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = "${each.value.told} docs/runbooks.md says what to do."
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  statistic           = each.value.statistic
  dimensions          = each.value.dimensions
  comparison_operator = each.value.below ? "LessThanThreshold" : "GreaterThanOrEqualToThreshold"
  threshold           = each.value.threshold
  period              = 60
  evaluation_periods  = each.value.minutes
  treat_missing_data  = each.value.below ? "breaching" : "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

output "topic_arn" {
  value = aws_sns_topic.alarms.arn
}

output "alarms" {
  value = sort(keys(local.alarms))
}
