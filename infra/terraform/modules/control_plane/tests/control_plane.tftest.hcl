mock_provider "aws" {
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }
  mock_data "aws_region" {
    defaults = { name = "eu-central-1" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/r" }
  }
  mock_resource "aws_lb" {
    defaults = { arn = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/l/1" }
  }
  mock_resource "aws_lb_target_group" {
    defaults = { arn = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/t/1" }
  }
  mock_resource "aws_ecs_task_definition" {
    defaults = { arn = "arn:aws:ecs:eu-central-1:123456789012:task-definition/t:1" }
  }
}

variables {
  name                     = "loraplex"
  vpc_id                   = "vpc-1"
  public_subnet_ids        = ["subnet-1", "subnet-2"]
  private_subnet_ids       = ["subnet-3", "subnet-4"]
  client_security_group_id = "sg-1"
  images                   = { api = "r/api:1", scheduler = "r/scheduler:1", gpu_worker = "r/gpu_worker:1" }
  parameter_arns = {
    database-url = "arn:aws:ssm:eu-central-1:123456789012:parameter/l/database-url"
    redis-url    = "arn:aws:ssm:eu-central-1:123456789012:parameter/l/redis-url"
    secret-key   = "arn:aws:ssm:eu-central-1:123456789012:parameter/l/secret-key"
    api-key      = "arn:aws:ssm:eu-central-1:123456789012:parameter/l/api-key"
  }
  kms_key_arn     = "arn:aws:kms:eu-central-1:123456789012:key/k"
  bucket          = "loraplex-123456789012"
  home            = { file_system_id = "fs-1", arn = "arn:aws:elasticfilesystem:eu-central-1:123456789012:file-system/fs-1", access_point_id = "fsap-1", access_point = "arn:aws:elasticfilesystem:eu-central-1:123456789012:access-point/fsap-1", mount_targets = [] }
  settings        = { LORAPLEX_DRIVER = "ec2" }
  driver_policies = { l4 = "{}", l4-spot = "{}" }
  certificate_arn = "arn:aws:acm:eu-central-1:123456789012:certificate/c"
  allowed_cidrs   = ["203.0.113.0/24"]
}

run "containers_cannot_write_and_are_no_root" {
  assert {
    condition = alltrue(flatten([
      for task in aws_ecs_task_definition.this : [
        for container in jsondecode(task.container_definitions) : container.readonlyRootFilesystem && container.user == "10001"
      ]
    ]))
    error_message = "A read-only root file system, the images' user."
  }
  assert {
    condition = alltrue(flatten([
      for task in aws_ecs_task_definition.this : [
        for container in jsondecode(task.container_definitions) : length([for each in container.environment : each if can(regex("PASSWORD|SECRET|DATABASE_URL|REDIS_URL", each.name))]) == 0
      ]
    ]))
    error_message = "Secrets come from parameters."
  }
}

run "the_tables_come_before_all_that_uses_them" {
  assert {
    condition = alltrue([
      for name, task in aws_ecs_task_definition.this : { for each in jsondecode(task.container_definitions) : each.name => [for on in lookup(each, "dependsOn", []) : on.containerName] } == { (name) = ["migrate"], migrate = [] }
    ])
    error_message = "Each waits for the migration, which waits for nothing."
  }
}

run "two_scalers_and_their_rights" {
  assert {
    condition     = aws_ecs_service.this["scaler"].desired_count == 2 && aws_ecs_service.this["api"].desired_count == 2
    error_message = "One leads, the other takes over."
  }
  assert {
    condition     = toset(keys(aws_iam_role_policy.driver)) == toset(["scaler-l4", "scaler-l4-spot", "tasks-l4", "tasks-l4-spot"])
    error_message = "Scaler and task workers alone start and end instances."
  }
}

run "only_who_may_reaches_it_by_tls" {
  assert {
    condition     = [for rule in aws_vpc_security_group_ingress_rule.balancer : rule.cidr_ipv4] == ["203.0.113.0/24"]
    error_message = "Nobody else is let in."
  }
  assert {
    condition     = aws_lb_listener.https.protocol == "HTTPS" && startswith(aws_lb_listener.https.ssl_policy, "ELBSecurityPolicy-TLS13")
    error_message = "TLS 1.2 at least."
  }
  assert {
    condition     = aws_lb.this.idle_timeout > var.request_timeout_s
    error_message = "The load balancer outwaits a request."
  }
}

run "settings_are_ours" {
  command = plan
  variables {
    settings = { PATH = "/evil" }
  }
  expect_failures = [var.settings]
}
